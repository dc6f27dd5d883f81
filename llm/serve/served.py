"""One model that is served: what it can, by its tokenizer, its context and its chat template."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F

from llm.adapter import Adapted
from llm.errors import DataError
from llm.generation import (
    BatchEngine,
    Draft,
    continues_prompt,
    inference,
    is_decoder_lm,
    is_generative,
    respond,
    responds_whole,
)
from llm.generation.context import ContextError, check_fits
from llm.generation.speculation import looked_up
from llm.generation.template import PlainTemplate, Template, Turn, template_of
from llm.generation.text import source_ids
from llm.model import Transformer
from llm.serve.errors import ApiError
from llm.serve.grammar import Grammars
from llm.serve.schema import ChatRequest
from llm.serve.worker import Worker
from llm.tokenizer import Tokenizer, framed


@dataclass
class Served:
    """A model under its name.

    `rows` texts are written at a time, and `waiting` more may wait; `speculate` tokens are guessed while one is written, by
    `draft` where it is given. `beside`: another served model that shares this one's layers. Both use its worker and are
    written in one batch; `rows`, `waiting`, `speculate` and `draft` are then its.
    """

    name: str
    model: Transformer
    tokenizer: Tokenizer
    rows: int = 16
    waiting: int = 64
    speculate: int = 0
    draft: Transformer | None = None
    beside: "Served | None" = None
    template: Template = field(init=False)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        self.template = template_of(self.tokenizer)
        if self.beside is None:
            self.worker = self._worker()
        else:
            self._share(self.beside)

    def _share(self, other: "Served") -> None:
        """Be written in the batch of `other`."""
        self.worker = other.worker
        self.rows, self.waiting = other.rows, other.waiting
        self.speculate, self.draft = other.speculate, other.draft

    def _worker(self) -> Worker:
        shared = self.model.shared if isinstance(self.model, Adapted) else self.model
        engine = None
        if is_generative(shared):
            guess = looked_up if self.draft is None else Draft(self.draft)
            engine = BatchEngine(shared, rows=self.rows, speculate=self.speculate, guess=guess)
        return Worker(engine, rows=self.rows, waiting=self.waiting)

    @property
    def adapter(self) -> int | None:
        """The number of the adapter that changes the layers for it."""
        return self.model.number if isinstance(self.model, Adapted) else None

    @property
    def is_generative(self) -> bool:
        """Whether it writes token by token: on from a prompt, or the target of a source."""
        return is_generative(self.model)

    @property
    def is_decoder_lm(self) -> bool:
        """Whether what it writes stands behind what it reads, in one sequence: a decoder that writes."""
        return is_decoder_lm(self.model)

    @property
    def continues_prompt(self) -> bool:
        """Whether it goes on from a prompt, rather than write the target of a source."""
        return continues_prompt(self.model, self.tokenizer)

    @property
    def chats(self) -> bool:
        """Whether it was trained to chat."""
        return not isinstance(self.template, PlainTemplate)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it tells, if it does: of what, `labelled` says."""
        return tuple(self.model.config.labels)

    @property
    def labelled(self) -> str | None:
        """What its labels are of: a text, its words, the edges of an answer or a number; None without labels."""
        return self.model.config.labelled if self.labels else None

    def about(self) -> dict[str, Any]:
        """What /v1/models says."""
        return {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "you",
            "architecture": self.model.config.architecture,
            "context_length": self.model.config.context_length,
            "continues": self.continues_prompt,
            "labels": list(self.labels),
            "labelled": self.labelled,
            "chat_template": self.chats,
        }

    def ids(self, given: str | list[int]) -> list[int]:
        """The ids of a prompt, or of a source where a decoder was trained on pairs; an empty prompt begins a document.

        Raises:
            ApiError: an id is not of this vocabulary.
        """
        if isinstance(given, str):
            is_source = self.is_decoder_lm and not self.continues_prompt
            return source_ids(self.tokenizer, given) if is_source else self._plain_ids(given)
        if max(given) >= self.tokenizer.vocab_size:
            raise ApiError(
                400, f"Token {max(given)} is not of this model's {self.tokenizer.vocab_size}.", param="prompt"
            )
        return given

    def whole_ids(self, given: str | list[int]) -> list[int]:
        """The ids of a text that is read as a whole, as the model was trained to read one: with the marks of its kind.

        Those that come as ids are taken as they are.

        Raises:
            ApiError: an id is not of this vocabulary.
        """
        if not isinstance(given, str) or self.is_decoder_lm:
            return self.ids(given)
        if self.model.reads_source:
            return source_ids(self.tokenizer, given)
        return framed(self.tokenizer, self.tokenizer.encode(given))

    def _plain_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text) or [self.tokenizer.end_of_text]

    def chat_ids(self, body: ChatRequest) -> list[int]:
        """The ids of a chat.

        Raises:
            ApiError: the model's template takes no such chat.
        """
        return self._chat_ids([(message.role, message.text) for message in body.messages], "messages")

    def _chat_ids(self, turns: Sequence[Turn], param: str) -> list[int]:
        try:
            return self.template.encode(turns)
        except DataError as error:
            raise ApiError(400, f"This model can't read these messages: {error}", param=param) from error

    def task_ids(self, text: str) -> list[int]:
        """The ids of a text that a model makes something of: a chat's first turn, where it was trained to chat.

        Raises:
            ApiError: the model's template takes no such turn.
        """
        if not (self.is_decoder_lm and self.chats):
            return self.ids(text)
        return self._chat_ids([("user", text)], "inputs")

    def check_fits(self, given: int, new: int, param: str) -> None:
        """Refuse `given` tokens, with `new` ones behind them, that the context has no room for.

        Raises:
            ApiError: 400, at the field `param`.
        """
        try:
            check_fits(self.model.config.context_length, given, new)
        except ContextError as error:
            raise ApiError(400, str(error), param=param, code="context_length_exceeded") from error

    def responds_whole(self, text: str) -> bool:
        """Whether what it says of `text` comes from `respond`, whole, rather than token by token."""
        return responds_whole(self.model, text)

    def respond(self, text: str, max_tokens: int | None) -> str:
        """What it says of a text, whole; to be called in the worker.

        Spans that it restores have `max_tokens`, or as many as the context has.
        """
        return respond(self.model, self.tokenizer, text, max_tokens or self.model.config.context_length)

    def embedding(self, prompt: Sequence[int]) -> list[float]:
        """The mean of the last hidden states, of unit length; to be called in the worker.

        Raises:
            ApiError: the text is longer than the context.
        """
        self.check_fits(len(prompt), 0, "input")
        with inference(self.model):
            tokens_1t = torch.tensor([prompt], device=next(self.model.parameters()).device)
            states_of = self.model.source_states if self.model.reads_source else self.model.hidden_states
            mean: list[float] = F.normalize(states_of(tokens_1t)[0].float().mean(0), dim=0).tolist()
        return mean

    @cached_property
    def grammars(self) -> Grammars:
        """What a text may be made to obey, kept for the next request."""
        return Grammars(self.tokenizer)
