"""What a model writes to show what it can: while it trains, and at its end."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np

from llm import build
from llm.build import Config
from llm.data.collators.words import LabelledWords
from llm.data.mixture import AnyCorpus
from llm.generation import (
    Sampling,
    complete,
    continues_prompt,
    is_decoder_lm,
    respond,
    show_hidden,
    template_of,
)
from llm.model import Transformer
from llm.redaction import redacted_text
from llm.tokenizer import MASK, hiding_tokens
from llm.train.callbacks import SampleWriter
from llm.train.metrics import Pause
from llm.train.run import Run
from llm.train.sharding import gathered

# Windows for each that is shown.
LOOKED_AT = 16


@dataclass(frozen=True)
class Writer:
    """What lets a model show what it can: `write` gives a text for each of `prompts`.

    The prompts are as they are written and shown; the model gets them as they are. `follows` says whether a text
    stands behind its prompt, or in its place.
    """

    prompts: list[str]
    write: Callable[[], list[str]]
    follows: bool

    def first(self) -> str:
        """The first text, with its prompt; nothing where there is no prompt."""
        if not self.prompts:
            return ""
        text = self.write()[0]
        return self.prompts[0] + text if self.follows else text


def sample_callbacks(
    config: Config, run: Run, net: Transformer, corpus: AnyCorpus, shows: Sequence[Any], pause: Pause
) -> list[L.Callback]:
    """What lets the model write while it trains."""
    keys = config["samples"]
    if not keys["every_n_steps"]:
        return []
    show = sample_writer(config, net, corpus)

    def write() -> list[str]:
        with gathered(net):
            return show.write()

    return [SampleWriter(run.samples, write, show.prompts, keys["every_n_steps"], shows, pause)]


def sample_writer(config: Config, net: Transformer, corpus: AnyCorpus) -> Writer:
    """What `samples` asks of the model: texts that begin with its prompts, hidden parts filled in, or targets.

    Of a model that doesn't continue a prompt, some held-out text is asked where the config has no prompts that suit.
    """
    if config["task"]["template"] is not None:
        return _chat_writer(config, net, corpus)
    if continues_prompt(net, corpus.tokenizer):
        return _continuing_writer(config, net, corpus)
    keys, tokenizer = config["samples"], corpus.tokenizer
    prompts = keys["prompts"] or _held_out_prompts(config, net, corpus)

    def write() -> list[str]:
        return [respond(net, tokenizer, prompt, keys["max_new_tokens"]) for prompt in prompts]

    # The response begins a line of its own.
    return Writer([redacted_text(prompt) + "\n" for prompt in prompts], write, follows=False)


def _continuing_writer(config: Config, net: Transformer, corpus: AnyCorpus) -> Writer:
    keys = config["samples"]
    prompts = keys["prompts"] or [""]

    def write() -> list[str]:
        return [
            sample
            for prompt in prompts
            for sample in complete(
                net,
                corpus.tokenizer,
                prompt,
                num_samples=keys["num_samples"],
                max_new_tokens=keys["max_new_tokens"],
                sampling=Sampling(temperature=keys["temperature"]),
                seed=config["seed"],
            )
        ]

    shown = [redacted_text(prompt) for prompt in prompts for _ in range(keys["num_samples"])]
    return Writer(shown, write, follows=True)


def _chat_writer(config: Config, net: Transformer, corpus: AnyCorpus) -> Writer:
    """What answers `samples.prompts`, or the first questions that are held out."""
    keys, tokenizer = config["samples"], corpus.tokenizer
    template = template_of(tokenizer)
    asked = [template.encode([("user", prompt)]) for prompt in keys["prompts"]] or _held_out_questions(
        config, net, corpus
    )
    how = {
        "max_new_tokens": keys["max_new_tokens"],
        "sampling": Sampling(temperature=keys["temperature"]),
        "stop_ids": template.stop_ids,
        "seed": config["seed"],
    }

    def write() -> list[str]:
        return [complete(net, tokenizer, ids, **how)[0] for ids in asked]

    return Writer([redacted_text(tokenizer.decode(ids)) for ids in asked], write, follows=True)


def _held_out_questions(config: Config, net: Transformer, corpus: AnyCorpus) -> list[list[int]]:
    """The ids of held-out conversations up to their first answers, or of held-out sources."""
    collate, length = build.collator(config, corpus.tokenizer, net.config), net.config.context_length
    stream = corpus.validation if len(corpus.validation) else corpus.train
    view = build.view_of(collate, stream, length, config["seed"])
    rows = view.in_order(np.arange(min(config["samples"]["num_samples"], view.n_in_order)))
    # Of a row of conversations the first, and of a preference the better one.
    return [row[0].ids_t[: int(row[0].is_written_t.argmax())].tolist() for row in rows]


def _held_out_prompts(config: Config, net: Transformer, corpus: AnyCorpus) -> list[str]:
    """What the task shows the model of some held-out text, hidden parts as <mask>."""
    if is_decoder_lm(net):
        return [corpus.tokenizer.decode(ids) for ids in _held_out_questions(config, net, corpus)]
    keys = config["samples"]
    length = net.config.context_length
    collate = build.collator(config, corpus.tokenizer, net.config)
    hides = collate.given == "hidden"
    if hides:
        # Some of a window says enough; a pair is shown whole.
        length = min(keys["max_new_tokens"], length)
        shorter = dataclasses.replace(net.config, context_length=length)
        collate = build.collator(config, corpus.tokenizer, shorter)
    stream = corpus.validation if len(corpus.validation) > length else corpus.train
    view = build.view_of(collate, stream, length, config["seed"])
    # Of a short window nothing may be hidden.
    numbers = np.arange(min(keys["num_samples"] * (LOOKED_AT if hides else 1), view.n_in_order))
    if isinstance(view, LabelledWords):
        return [view.shown(number, corpus.tokenizer) for number in numbers.tolist()]
    batch = collate(view.in_order(numbers), numbers)
    shown_bs = batch.tokens_bt if batch.source_bs is None else batch.source_bs
    marks = hiding_tokens(corpus.tokenizer)
    shown = [show_hidden(corpus.tokenizer, ids, marks) for ids in shown_bs.tolist()]
    return [one for one in shown if MASK in one or not hides][: keys["num_samples"]]
