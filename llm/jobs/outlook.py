"""What a training command would begin with, checked as training checks it, and a step of it, ready to be traced."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llm import build
from llm.build import Config, Origin
from llm.data import Corpus
from llm.data.collators.base import SampleCost, TokenCounts, measure_samples
from llm.data.mixture import samples_of
from llm.data.preparation.prepare import find_prepared
from llm.data.sources import HuggingFace
from llm.errors import ConfigError
from llm.model import ModelConfig
from llm.plan import Layout, Trace, TrainingStep, trace, whole_context
from llm.train.derive import Derived, Machine, derive
from llm.train.parallelism import Parallelism, parallelism_of
from llm.train.run import Run


@dataclass(frozen=True)
class Text:
    """What is known of the text: its corpus where it is prepared, else its size in bytes where that is known."""

    corpus: Corpus | None
    n_bytes: int | None


@dataclass(frozen=True)
class Outlook:
    """A training command, ready to be reckoned; `steps` is None where the corpus decides it."""

    config: Config
    model_config: ModelConfig
    text: Text
    derived: Derived
    sample_cost: SampleCost
    step: TrainingStep
    steps: int | None

    @property
    def mean(self) -> TokenCounts:
        """The tokens of the average sample."""
        return self.sample_cost.mean

    @cached_property
    def trace(self) -> Trace:
        """What the step was seen to take."""
        return trace(self.step)

    @property
    def weight_bytes(self) -> int:
        """What all weights take together, with those that are trained beside others, and codes where weights are kept in them."""
        floats = self.step.dtype.itemsize
        return sum(
            p.numel() * (floats if p.is_floating_point() else p.element_size())
            for p in self.step.model(self.model_config).parameters()
        )

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a global batch."""
        return round(self.config["data"]["batch_size"] * self.mean.counted)


def look_ahead(config: Config, choices: dict[str, Any], machine: Machine | None = None) -> Outlook:
    """Everything that training would begin with, checked as training checks it, on this machine or another.

    Raises:
        UserError: whatever training would raise before its first step.
    """
    run = Run(Path(config["runs_dir"]) / config["name"])
    build.check_mixes(config)
    origin = build.origin(config, run)
    text = _text(config, origin)
    model_config = (
        origin.sized(_vocab_size(config, origin, text))
        if text.corpus is None
        else build.model_config_for(config, origin, text.corpus)
    )
    sample_cost, samples = _samples(config, origin, text, model_config)
    known = run.begun.get("derived", {}) if machine is None else {}
    parallelism = parallelism_of(config["trainer"]["strategy"])
    derived = derive(config, parallelism, model_config.context_length, samples, known, machine)
    build.check_layout(config, model_config, parallelism)
    layout = Layout(parallelism, derived.world_size, derived.accelerator)
    step = build.traced_step(
        config, model_config, layout, derived.precision, sample_cost, derived.micro_batch_size
    )
    _check_builds(config, model_config, origin, derived, parallelism)
    # Epochs alone, of a corpus that nobody has counted yet.
    open_end = text.corpus is None and config["trainer"]["max_steps"] in (None, -1)
    return Outlook(
        config, model_config, text, derived, sample_cost, step, None if open_end else derived.max_steps
    )


def _check_builds(
    config: Config, model_config: ModelConfig, origin: Origin, derived: Derived, parallelism: Parallelism
) -> None:
    """Make what training would train, for the errors of its schedule and objective that nothing else here meets."""
    build.module(config, build.model(config, model_config), origin, derived, parallelism)


def _samples(config: Config, origin: Origin, text: Text, model_config: ModelConfig) -> tuple[SampleCost, int]:
    """What samples take, and how many there are; as much as the context holds while the text is not prepared."""
    tokenizer = build.stand_in(origin.tokenizer) if text.corpus is None else text.corpus.tokenizer
    collate = build.collator(config, tokenizer, model_config)
    if text.corpus is not None:
        view = samples_of(collate, text.corpus.train, model_config.context_length, config["seed"])
        return measure_samples(collate, view), view.size
    of_window = getattr(collate, "window_tokens", None)
    tokens = whole_context(model_config) if of_window is None else of_window(model_config.context_length)
    return SampleCost(tokens, tokens, collate.extra_fields), sys.maxsize


def _text(config: Config, origin: Origin) -> Text:
    if config["data"]["sources"]:
        return Text(None, None)  # as many tokenizers and corpora to look for as there are sources
    source = build.source(config["data"], config)
    if isinstance(source, HuggingFace) and not Path(source.path).exists():
        return Text(None, None)  # to look at it is to download it
    plan, corpus = find_prepared(
        source, origin.tokenizer, config["shards_dir"], steps=build.cleaning_steps(config["data"], config)
    )
    return Text(corpus, plan.n_bytes)


def _vocab_size(config: Config, origin: Origin, text: Text) -> int:
    if text.corpus is not None:
        return text.corpus.vocab_size
    if not origin.tokenizer.needs_text:
        return origin.tokenizer.build(()).vocab_size
    size = config["tokenizer"].get("vocab_size")
    if size is None:
        raise ConfigError(
            "The vocabulary's size is only known once the text is prepared: llm prepare does it."
        )
    return int(size)
