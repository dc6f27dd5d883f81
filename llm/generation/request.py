"""What is asked of the batched engine, and the tokens that it gives back."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llm.generation.engine import GREEDY
from llm.generation.rules import Rule
from llm.generation.sampling import Sampling

Finish = Literal["stop", "length"]


@dataclass(frozen=True, eq=False)
class Request:
    """What one text is to be: the tokens it goes on from, when it ends, and how its tokens are drawn.

    seed: the same one gives the same text, whatever else is in the batch, but for what rounding decides between
    tokens that are equally likely to seven digits; None draws one from the system. top_logprobs: how many of the
    likeliest tokens are told with each token, 0 for the token alone, None for nothing. rules: what changes logits
    before the draw. source: what an encoder-decoder reads, its prompt being the beginning of a target. adapter: the
    number of the one that changes the model for it (`llm.adapter.attach`), None for the model alone.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    seed: int | None = None
    stop_ids: Collection[int] = ()
    top_logprobs: int | None = None
    rules: Sequence[Rule] = ()
    source: Sequence[int] = ()
    adapter: int | None = None


class Logprobs(NamedTuple):
    """By the model's own scores, before settings and rules: of the drawn token, and of the likeliest with their ids."""

    chosen: float
    top: list[tuple[int, float]]


class Token(NamedTuple):
    """A request's next token; the last one says why it is the last: it is one of the `stop_ids`, or the length."""

    request: Request
    id: int
    logprobs: Logprobs | None
    finish: Finish | None
