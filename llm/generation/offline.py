"""Many prompts at once: the batched engine kept full until all are written, in whatever order they finish."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from llm.generation.abilities import continues_prompt, is_decoder_lm
from llm.generation.batching import BatchEngine
from llm.generation.context import room_after
from llm.generation.request import Request, Token
from llm.generation.sampling import Sampling
from llm.generation.text import TextWriter, prompt_and_source
from llm.model import Transformer
from llm.tokenizer import Tokenizer


class Prompt(NamedTuple):
    """A text to go on from, under its number."""

    number: int
    text: str


class Written(NamedTuple):
    """What was written for a prompt: its texts, and why each ended."""

    prompt: Prompt
    texts: list[str]
    finishes: list[str]


def write_texts(engine: BatchEngine, writers: Mapping[Request, TextWriter]) -> list[str]:
    """The text of each request by its writer, in their order; one whose writer meets a stop is written no further."""
    texts = dict.fromkeys(writers, "")
    for token in engine.run(list(writers)):
        writer = writers[token.request]
        texts[token.request] += writer.take(token)
        if writer.stopped:
            engine.cancel(token.request)
    return list(texts.values())


@dataclass(frozen=True)
class BatchWriter:
    """How prompts are gone on from: `num_samples` texts each.

    Text j of prompt i draws from `seed + i * num_samples + j`, so that it doesn't matter what is written beside it. Of a
    prompt that leaves too little of the context, its end is taken: at least half the context is for the prompt. Of a
    source that can't be seen whole, its beginning is.
    """

    tokenizer: Tokenizer
    sampling: Sampling
    max_new_tokens: int
    num_samples: int
    seed: int

    def write(self, engine: BatchEngine, prompts: Iterable[Prompt]) -> Iterator[Written]:
        """Yield each prompt's texts as soon as they are whole; `prompts` are taken as there is room for them."""
        left = iter(prompts)
        under_way: dict[Request, _Texts] = {}
        while True:
            # As many wait as write, so that no row is ever free while there are prompts.
            for prompt in islice(left, max(0, engine.rows - len(engine.waiting))):
                texts = _Texts.of(prompt, self._requests(engine, prompt), self.tokenizer)
                under_way |= dict.fromkeys(texts.requests, texts)
                for request in texts.requests:
                    engine.add(request)
            if not engine.busy:
                return
            for token in engine.step():
                texts = under_way[token.request]
                texts.add(token)
                if token.finish is not None:
                    del under_way[token.request]
                    if all(texts.finishes):
                        yield Written(texts.prompt, texts.texts, texts.finishes)

    def _requests(self, engine: BatchEngine, prompt: Prompt) -> list[Request]:
        context, end = engine.model.config.context_length, self.tokenizer.end_of_text
        ids, source = prompt_and_source(engine.model, self.tokenizer, self._cut(engine.model, prompt.text))
        length = min(self.max_new_tokens, room_after(ids, context))
        first = self.seed + prompt.number * self.num_samples
        return [
            Request(ids, length, self.sampling, (first + number) % 2**63, [end], source=source)
            for number in range(self.num_samples)
        ]

    def _cut(self, model: Transformer, text: str) -> list[int]:
        """The ids of a text, as many as the context takes of it."""
        context, end = model.config.context_length, self.tokenizer.end_of_text
        ids = self.tokenizer.encode(text) or [end]
        if not is_decoder_lm(model):
            return ids[: context - 1]  # an end of text stands behind it
        room = max(1, context - min(self.max_new_tokens, context // 2))
        return ids[-room:] if continues_prompt(model, self.tokenizer) else [*ids[: room - 1], end]


@dataclass
class _Texts:
    """A prompt's texts under way."""

    prompt: Prompt
    requests: Sequence[Request]
    writers: list[TextWriter]
    texts: list[str]
    finishes: list[str]

    @classmethod
    def of(cls, prompt: Prompt, requests: Sequence[Request], tokenizer: Tokenizer) -> "_Texts":
        writers = [TextWriter(tokenizer) for _ in requests]
        return cls(prompt, requests, writers, [""] * len(requests), [""] * len(requests))

    def add(self, token: Token) -> None:
        number = self.requests.index(token.request)
        self.texts[number] += self.writers[number].take(token)
        if token.finish is not None:
            self.finishes[number] = token.finish
