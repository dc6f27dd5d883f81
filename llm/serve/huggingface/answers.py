"""Hugging Face's answers: texts as text-generation-inference tells them, whole or as they come, and filled masks."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from llm.generation import Token
from llm.generation.filling import Filling
from llm.generation.text import token_text
from llm.serve.asking import Settings
from llm.serve.errors import ApiError
from llm.serve.huggingface.schema import Parameters
from llm.serve.responding import event
from llm.serve.served import Served
from llm.serve.writing import Completion, Piece, Placed

DEFAULT_TOKENS = 64
# Each client of a task looks for its own name.
NAMES = ("generated_text", "summary_text", "translation_text")
Object = dict[str, Any]


def settings(served: Served, asked: Parameters, *, details: bool) -> Settings:
    """How a text is written: as long as asked, or as the context allows where that is less."""
    how = asked.writing
    return Settings(
        "inputs",
        served.chats,
        how.sampling,
        default_tokens=how.max_new_tokens or DEFAULT_TOKENS,
        seed=how.seed,
        stops=how.stop or (),
        top_logprobs=(asked.top_n_tokens or 0) if details else None,
        frequency_penalty=how.frequency_penalty or 0.0,
        schema=None if how.grammar is None else how.grammar.schema_given,
    )


@dataclass(frozen=True)
class GenerationShape:
    """The shape of a text for a prompt of `read` tokens."""

    served: Served
    asked: Parameters
    prompt: str
    read: int

    def whole(self, text: str, tokens: Sequence[Placed], finish: str) -> Object:
        """A whole text."""
        found: Object = dict.fromkeys(NAMES, self._with_prompt(text))
        if self.asked.details:
            told = [token for token, _ in tokens]
            found["details"] = {
                **self._end(told[-1], len(told), finish),
                "prefill": [],
                "tokens": [self._token(token, token_text(self.served.tokenizer, token.id)) for token in told],
                "top_tokens": [self._top(token) for token in told] if self.asked.top_n_tokens else None,
            }
        return found

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
        """A text as it comes: an event for each token, with the whole text in the last."""
        answer = Completion.empty(1, self.read)
        async for piece in pieces:
            answer.add(piece)
            last = piece.tokens[-1].token
            end: Object = {"generated_text": None, "details": None}
            if piece.finish is not None:
                end["generated_text"] = self._with_prompt(answer.texts[0])
                end["details"] = {
                    **self._end(last, answer.written, piece.finish),
                    "input_length": self.read,
                }
            token = self._token(last, piece.text)
            yield event(
                {"index": answer.written, "token": token, "top_tokens": self._top(last) or None, **end}
            )

    def _with_prompt(self, text: str) -> str:
        return self.prompt + text if self.asked.return_full_text else text

    def _end(self, last: Token, written: int, finish: str) -> Object:
        return {
            "finish_reason": _reason(last, finish),
            "generated_tokens": written,
            "seed": self.asked.writing.seed,
        }

    def _token(self, token: Token, text: str) -> Object:
        logprob = None if token.logprobs is None else token.logprobs.chosen
        return self._told(token.id, text, logprob)

    def _top(self, token: Token) -> list[Object]:
        top = [] if token.logprobs is None else token.logprobs.top
        return [self._told(id_, token_text(self.served.tokenizer, id_), value) for id_, value in top]

    def _told(self, id_: int, text: str, logprob: float | None) -> Object:
        special = id_ in self.served.tokenizer.special_tokens.values()
        return {"id": id_, "text": text, "logprob": logprob, "special": special}


def filled_in(one: Filling) -> Object:
    """A token in place of a <mask>."""
    return {"score": one.probability, "token": one.id, "token_str": one.text, "sequence": one.whole}


def failure(error: ApiError) -> Object:
    """An error in the middle of a stream."""
    return {"error": error.message, "error_type": "generation"}


def _reason(last: Token, finish: str) -> str:
    """Why a text ends: by its length, by a token or by one of the client's stops."""
    if finish == "length":
        return "length"
    return "eos_token" if last.finish == "stop" else "stop_sequence"
