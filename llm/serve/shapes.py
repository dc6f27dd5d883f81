"""OpenAI's answers: the JSON objects of completions and chats, whole and in pieces."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from llm.generation.request import Logprobs
from llm.generation.text import token_text
from llm.serve.served import Served
from llm.serve.writing import Completion, Piece, Placed
from llm.tokenizer import Tokenizer

Object = dict[str, Any]


class Told(NamedTuple):
    """A token of the text whose log-probabilities are told."""

    id: int
    offset: int
    logprobs: Logprobs


def _told(tokens: Sequence[Placed]) -> list[Told] | None:
    """The tokens that are told, without the one that ends the text and stands not in it; None where nobody asked."""
    told = [
        (token, Told(token.id, offset, token.logprobs))
        for token, offset in tokens
        if token.logprobs is not None
    ]
    return [one for token, one in told if token.finish != "stop"] if told else None


def _exact_name(tokenizer: Tokenizer, id_: int) -> str:
    """A token as completions name it: its text, or its bytes where these are no whole characters."""
    exact = tokenizer.decode_bytes([id_])
    try:
        return exact.decode() or token_text(tokenizer, id_)
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in exact)


def _by_name(one: Told, name: Callable[[int], str]) -> dict[str, float]:
    """The likeliest tokens, the first of those that have one name, and the chosen one, which need not be among them."""
    found: dict[str, float] = {}
    for id_, value in one.logprobs.top:
        found.setdefault(name(id_), value)
    return {**found, name(one.id): one.logprobs.chosen}


@dataclass(frozen=True)
class CompletionShape:
    """The shape of /v1/completions."""

    served: Served
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"
    prefix: str = "cmpl"

    def choice(self, index: int, text: str, tokens: Sequence[Placed], finish: str | None) -> Object:
        """A whole text."""
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(tokens),
            "finish_reason": finish,
        }

    def begin(self, number: int) -> list[Object]:
        """What a stream of `number` texts begins with."""
        return []

    def piece(self, piece: Piece) -> Object:
        """A piece of a stream."""
        return self.choice(*piece)

    def _logprobs(self, tokens: Sequence[Placed]) -> Object | None:
        told = _told(tokens)
        if told is None:
            return None
        name = partial(_exact_name, self.served.tokenizer)
        return {
            "tokens": [name(one.id) for one in told],
            "token_logprobs": [one.logprobs.chosen for one in told],
            "top_logprobs": [_by_name(one, name) for one in told],
            "text_offset": [one.offset for one in told],
        }


@dataclass(frozen=True)
class ChatShape:
    """The shape of /v1/chat/completions."""

    served: Served
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"
    prefix: str = "chatcmpl"

    def choice(self, index: int, text: str, tokens: Sequence[Placed], finish: str | None) -> Object:
        """A whole text."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self._logprobs(tokens),
            "finish_reason": finish,
        }

    def begin(self, number: int) -> list[Object]:
        """What a stream of `number` texts begins with: who speaks."""
        delta = {"role": "assistant", "content": ""}
        return [
            {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            for index in range(number)
        ]

    def piece(self, piece: Piece) -> Object:
        """A piece of a stream."""
        return {
            "index": piece.number,
            "delta": {"content": piece.text},
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": piece.finish,
        }

    def _logprobs(self, tokens: Sequence[Placed]) -> Object | None:
        told = _told(tokens)
        if told is None:
            return None
        return {
            "content": [
                {
                    **self._token(one.id, one.logprobs.chosen),
                    "top_logprobs": [self._token(id_, value) for id_, value in one.logprobs.top],
                }
                for one in told
            ],
            "refusal": None,
        }

    def _token(self, id_: int, logprob: float) -> Object:
        exact = list(self.served.tokenizer.decode_bytes([id_]))
        return {"token": token_text(self.served.tokenizer, id_), "logprob": logprob, "bytes": exact}


Shape = CompletionShape | ChatShape


@dataclass(frozen=True)
class Envelope:
    """What stands around the choices of one answer, alike in all pieces of a stream."""

    shape: Shape
    id: str
    created: int

    @classmethod
    def of(cls, shape: Shape) -> "Envelope":
        """A new one."""
        return cls(shape, f"{shape.prefix}-{uuid.uuid4().hex}", int(time.time()))

    def whole(self, completion: Completion) -> Object:
        """The answer to a request that doesn't stream."""
        choices = [
            self.shape.choice(index, *rest)
            for index, rest in enumerate(
                zip(completion.texts, completion.tokens, completion.finishes, strict=True)
            )
        ]
        return {**self._head(self.shape.kind), "choices": choices, "usage": completion.usage()}

    def chunk(self, choices: Sequence[Object], usage: Object | None = None) -> Object:
        """One event of a stream."""
        told = {} if usage is None else {"usage": usage}
        return {**self._head(self.shape.chunk_kind), "choices": list(choices), **told}

    def _head(self, kind: str) -> Object:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.shape.served.name}
