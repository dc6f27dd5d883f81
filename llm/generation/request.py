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

    Args:
        prompt: the ids that the text goes on from, at least one; of an encoder-decoder the beginning of the target.
        max_new_tokens: the most tokens that are written, at least 1; prompt and these must fit into the context.
        sampling: how each token is drawn.
        seed: the same one gives the same text, whatever else is in the batch, but for what rounding decides between
            tokens that are equally likely to seven digits. None draws one from the system.
        stop_ids: tokens that end the text; the one that does is its last.
        top_logprobs: how many of the likeliest tokens are told with each token; 0 tells the token's own log-probability
            alone, None nothing.
        rules: what changes the logits before each draw, in this order.
        source: the ids that an encoder-decoder's encoder reads; empty for other models.
        adapter: the number of the adapter that changes the model for this text (`llm.adapter.attach`); None for the model
            alone.
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
