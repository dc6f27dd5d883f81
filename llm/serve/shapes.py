"""OpenAI's answers: the JSON objects of completions and chats, whole and in pieces."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llm.generation import Token
from llm.generation.text import token_text
from llm.serve.served import Served
from llm.serve.writing import Completion, Piece

Object = dict[str, Any]


@dataclass(frozen=True)
class CompletionShape:
    """The shape of /v1/completions."""

    served: Served
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"
    prefix: str = "cmpl"

    def choice(self, index: int, text: str, tokens: Sequence[Token], finish: str | None) -> Object:
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

    def _logprobs(self, tokens: Sequence[Token]) -> Object | None:
        told = [(token, token.logprobs) for token in tokens if token.logprobs is not None]
        if not told:
            return None
        name = partial(token_text, self.served.tokenizer)
        texts = [name(token.id) for token, _ in told]
        return {
            "tokens": texts,
            "token_logprobs": [logprobs.chosen for _, logprobs in told],
            "top_logprobs": [{name(id_): value for id_, value in logprobs.top} for _, logprobs in told],
            "text_offset": [sum(map(len, texts[:index])) for index in range(len(texts))],
        }


@dataclass(frozen=True)
class ChatShape:
    """The shape of /v1/chat/completions."""

    served: Served
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"
    prefix: str = "chatcmpl"

    def choice(self, index: int, text: str, tokens: Sequence[Token], finish: str | None) -> Object:
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

    def _logprobs(self, tokens: Sequence[Token]) -> Object | None:
        told = [(token, token.logprobs) for token in tokens if token.logprobs is not None]
        if not told:
            return None
        return {
            "content": [
                {
                    **self._token(token.id, logprobs.chosen),
                    "top_logprobs": [self._token(id_, value) for id_, value in logprobs.top],
                }
                for token, logprobs in told
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
