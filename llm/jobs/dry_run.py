"""`dry_run=true`: what a training command would do and what it would take; nothing is trained or written."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from llm import build
from llm.build import Config, Origin
from llm.data import Corpus
from llm.data.collators.base import SampleCost, TokenCounts, measure_samples
from llm.data.mixture import samples_of
from llm.data.preparation.prepare import find_prepared
from llm.data.sources import HuggingFace
from llm.errors import ConfigError
from llm.jobs.show import amount, duration
from llm.model import ModelConfig, parameter_count, sequence_flops
from llm.plan import (
    TYPICAL_MFU,
    Layout,
    Memory,
    TrainingStep,
    checkpoint_bytes,
    kept_checkpoints,
    trace,
    training_seconds,
    whole_context,
)
from llm.redaction import redacted
from llm.train import checkpoint, launch
from llm.train.derive import Derived, Machine, derive
from llm.train.parallelism import parallelism_of
from llm.train.run import Run

UNKNOWN = "known once the text is prepared (llm prepare)"

Line = tuple[str, str, str]


@dataclass(frozen=True)
class Text:
    """What is known of the text: its corpus where it is prepared, else its size in bytes where that is known."""

    corpus: Corpus | None
    n_bytes: int | None


@dataclass(frozen=True)
class Outlook:
    """A training command, ready to be reckoned; `steps` is None where the corpus decides it."""

    config: Config
    shape: ModelConfig
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
    def memory(self) -> Memory:
        """What a process has at its peak."""
        return trace(self.step).peak

    @property
    def weight_bytes(self) -> int:
        """What all weights take together, with those that are trained beside others, and codes where weights are kept in them."""
        floats = self.step.dtype.itemsize
        return sum(
            p.numel() * (floats if p.is_floating_point() else p.element_size())
            for p in self.step.model(self.shape).parameters()
        )

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a global batch."""
        return round(self.config["data"]["batch_size"] * self.mean.counted)


def show_dry_run(config: Config, choices: dict[str, Any]) -> int:
    """Print the composed config and what the run would take; returns the exit code."""
    if launch.rank() != 0:
        return 0
    outlook = look_ahead(config, choices)
    print(yaml.safe_dump(redacted(config), sort_keys=False, allow_unicode=True))
    for title, lines in (
        ("The run", _run(outlook)),
        ("Work", _work(outlook)),
        ("Memory a process", _memory(outlook)),
        ("Disk", _disk(outlook)),
    ):
        print(title)
        for what, value, remark in lines:
            print(f"  {what:<18} {value:>14}  {remark}".rstrip())
    print("\ndry_run=true: nothing was trained or written. Without it, this command trains.")
    return 0


def look_ahead(config: Config, choices: dict[str, Any], machine: Machine | None = None) -> Outlook:
    """Everything that training would begin with, checked as training checks it, on this machine or another.

    Raises:
        UserError: whatever training would raise before its first step.
    """
    run = Run(Path(config["runs_dir"]) / config["name"])
    build.check_mixes(config)
    origin = build.origin(config, run)
    text = _text(config, origin)
    shape = (
        origin.sized(_vocab_size(config, origin, text))
        if text.corpus is None
        else build.shape_for(config, origin, text.corpus)
    )
    sample_cost, samples = _samples(config, origin, text, shape)
    known = run.begun.get("derived", {}) if machine is None else {}
    parallelism = parallelism_of(config["trainer"]["strategy"])
    derived = derive(config, parallelism, shape.context_length, samples, known, machine)
    build.check_layout(config, shape, parallelism)
    layout = Layout(parallelism, derived.world_size, derived.accelerator)
    step = build.traced_step(config, shape, layout, derived.precision, sample_cost, derived.micro_batch_size)
    build.module(config, build.model(config, shape), origin, derived, parallelism)
    # Epochs alone, of a corpus that nobody has counted yet.
    open_end = text.corpus is None and config["trainer"]["max_steps"] in (None, -1)
    return Outlook(config, shape, text, derived, sample_cost, step, None if open_end else derived.max_steps)


def _samples(config: Config, origin: Origin, text: Text, shape: ModelConfig) -> tuple[SampleCost, int]:
    """What samples take, and how many there are; as much as the context holds while the text is not prepared."""
    tokenizer = build.stand_in(origin.tokenizer) if text.corpus is None else text.corpus.tokenizer
    collate = build.collator(config, tokenizer, shape)
    if text.corpus is not None:
        view = samples_of(collate, text.corpus.train, shape.context_length, config["seed"])
        return measure_samples(collate, view), view.size
    of_window = getattr(collate, "window_tokens", None)
    tokens = whole_context(shape) if of_window is None else of_window(shape.context_length)
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


def _run(outlook: Outlook) -> list[Line]:
    derived, run = outlook.derived, Run(Path(outlook.config["runs_dir"]) / outlook.config["name"])
    saved = checkpoint.folders(run.checkpoints)
    begins = f"there is a checkpoint of step {checkpoint.step_of(saved[0])}" if saved else "new"
    sizes = (
        f"{outlook.shape.n_layers} layers, width {outlook.shape.d_model}, {outlook.shape.vocabulary:,} ids"
    )
    how = f"{derived.precision}, micro-batches of {derived.micro_batch_size} x {derived.accumulation}"
    return [
        ("folder", str(run.folder), f"({begins}, resume={outlook.config['resume']})"),
        ("parameters", f"{parameter_count(outlook.shape):,}", sizes),
        ("devices", f"{derived.world_size} x {derived.accelerator}", how + ", compiled" * derived.compile),
    ]


def _work(outlook: Outlook) -> list[Line]:
    mean, a_step = outlook.mean, outlook.tokens_per_step
    a_sample = sequence_flops(outlook.shape, mean.inputs, read=mean.source, scored=mean.targets)
    a_token = a_sample / mean.counted
    lines = [
        (
            "tokens a step",
            f"{a_step:,}",
            f"{outlook.config['data']['batch_size']} sequences of {mean.counted:,.0f}",
        ),
        ("FLOPs a token", amount(a_token), "forward and backward"),
    ]
    if outlook.steps is None:
        return [*lines, ("steps", "?", UNKNOWN)]
    tokens = outlook.steps * a_step
    return [
        *lines,
        ("steps", f"{outlook.steps:,}", ""),
        ("tokens", f"{tokens:,}", ""),
        ("epochs", *_epochs(outlook, tokens)),
        ("FLOPs", amount(a_token * tokens), ""),
        ("time", *_time(outlook, a_token * tokens)),
    ]


def _epochs(outlook: Outlook, tokens: int) -> tuple[str, str]:
    corpus = outlook.text.corpus
    if corpus is None:
        return "?", UNKNOWN
    return f"{tokens / len(corpus.train):.3g}", f"of {len(corpus.train):,} tokens in {corpus.folder}"


def _time(outlook: Outlook, flops: float) -> tuple[str, str]:
    derived = outlook.derived
    seconds = training_seconds(flops, derived.peak_flops, derived.world_size, derived.accelerator)
    mfu = TYPICAL_MFU.get(derived.accelerator, min(TYPICAL_MFU.values()))
    return (
        f"about {duration(seconds)}",
        f"training alone, at a typical {mfu:.0%} of the {amount(derived.peak_flops)}FLOP/s a device that matrix "
        "products reach here",
    )


def _memory(outlook: Outlook) -> list[Line]:
    memory = outlook.memory
    remarks = {
        "weights": "",
        "gradients": "",
        "optimizer": "its state",
        "activations": f"of a micro-batch of {outlook.derived.micro_batch_size}",
        "logits": "and their gradients",
        "buffers": "messages, gathered weights, the update",
        "gaps": "between tensors, where a CPU's allocator keeps what was freed",
    }
    parts = [(name, f"{amount(getattr(memory, name))}B", remark) for name, remark in remarks.items()]
    return [*parts, ("in all", f"{amount(memory.total)}B", "beside what the program itself takes")]


def _disk(outlook: Outlook) -> list[Line]:
    memory, whole = outlook.memory, outlook.weight_bytes
    size = checkpoint_bytes(whole, round(memory.optimizer * whole / memory.weights))
    lines = [("a checkpoint", f"{amount(size)}B", "weights and optimizer state")]
    if outlook.steps is not None:
        kept = kept_checkpoints(outlook.steps, **outlook.config["checkpoint"])
        lines.append(("checkpoints", f"{amount(size * kept)}B", f"{kept} at most at a time"))
    corpus, n_bytes = outlook.text.corpus, outlook.text.n_bytes
    if corpus is not None:
        shards = sum(file["bytes"] for file in corpus.index["files"].values())
        return [*lines, ("shards", f"{amount(shards)}B", "prepared already")]
    text = "" if n_bytes is None else f"; the text has {amount(n_bytes)}B, and shards seldom more"
    return [*lines, ("shards", "?", UNKNOWN + text)]
