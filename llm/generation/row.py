"""A row of the batched engine's cache: the tokens that are cached, the request that it works for, its next token.

Shapes: b rows of the batch, t tokens, v vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llm.generation.request import Finish, Logprobs, Request
from llm.generation.sampling import Sampling
from llm.generation.speculation import common_start


@dataclass(eq=False)
class Row:
    """A row of the cache: the tokens whose keys and values are `cached`, and the request that it works for.

    These are keys and values under one adapter and, of an encoder-decoder, for one source, which `has_source` once it
    is read.
    """

    cached: list[int] = field(default_factory=list)
    adapter: int | None = None
    source: Sequence[int] = ()
    has_source: bool = False
    last_used: int = 0
    request: Request | None = None
    tokens: list[int] = field(default_factory=list)
    generator: torch.Generator | None = None

    @property
    def new(self) -> list[int]:
        """What was drawn so far."""
        assert self.request is not None
        return self.tokens[len(self.request.prompt) :]

    @property
    def to_prefill(self) -> int:
        """How many tokens of the prompt the cache lacks."""
        return len(self.tokens) - len(self.cached)

    @property
    def width(self) -> int:
        """How many tokens are read at most of its prompt, or of its source, which is read whole."""
        return max(self.to_prefill, 0 if self.has_source else len(self.source))

    def shared(self, tokens: Sequence[int], request: Request) -> int:
        """How many of `tokens` the request's prompt begins with, where their keys and values are as it needs them."""
        if not self.is_like(request):
            return 0
        return common_start(tokens, request.prompt[:-1])  # the last is always read: it gives the first logits

    def is_like(self, request: Request) -> bool:
        """Whether the request has the adapter and the source of what is cached."""
        return self.adapter == request.adapter and self.source == request.source

    def source_shared(self, request: Request) -> int:
        """How many tokens of the request's source are read where the row's are."""
        return len(request.source) if self.is_like(request) else 0

    @property
    def is_plain(self) -> bool:
        """Whether its next token depends on the newest logits alone, so that it can be drawn with others."""
        assert self.request is not None
        return not self.request.rules and self.request.sampling.repetition_penalty is None

    def finish(self) -> Finish | None:
        """Why the newest token is the last one."""
        assert self.request is not None
        if self.tokens[-1] in self.request.stop_ids:
            return "stop"
        return "length" if len(self.new) >= self.request.max_new_tokens else None


def next_tokens(rows: Sequence[Row], logits_bv: Tensor) -> list[int | Exception]:
    """The next token of each row, or what its rule or its draw raised, which keeps no other row from its own.

    Rows that are drawn alike are drawn in one go, others one after the other.
    """
    found: list[int | Exception] = [0] * len(rows)
    alike: dict[Sampling, list[int]] = {}
    for index, row in enumerate(rows):
        assert row.request is not None
        if row.is_plain:
            alike.setdefault(row.request.sampling, []).append(index)
        else:
            found[index] = _drawn_alone(row, logits_bv[index : index + 1])
    for sampling, indices in alike.items():
        some_bv = logits_bv if len(indices) == len(rows) else logits_bv[indices]
        drawn = _drawn_together([rows[index] for index in indices], sampling, some_bv)
        for index, id_ in zip(indices, drawn, strict=True):
            found[index] = id_
    return found


def _drawn_together(rows: Sequence[Row], sampling: Sampling, logits_bv: Tensor) -> list[int | Exception]:
    """The next token of each of some plain rows; where that fails, each is drawn alone to see whose fault it is."""
    none_b0 = torch.empty(len(rows), 0, dtype=torch.long, device=logits_bv.device)
    generators = [generator for row in rows if (generator := row.generator) is not None]
    try:
        return [int(id_) for id_ in sampling.draw(logits_bv, none_b0, generators).tolist()]
    except Exception:
        return [_drawn_alone(row, logits_1v) for row, logits_1v in zip(rows, logits_bv.split(1), strict=True)]


def _drawn_alone(row: Row, logits_1v: Tensor) -> int | Exception:
    """The next token of a row by its request's rules and penalties, or what they raised."""
    assert row.request is not None
    assert row.generator is not None
    try:
        for rule in row.request.rules:
            logits_1v = rule(logits_1v, row.new)
        # A list of a thousand takes as long to become a tensor as the draw itself, and few need it.
        seen = row.tokens if row.request.sampling.repetition_penalty is not None else []
        seen_1t = torch.tensor([seen], dtype=torch.long, device=logits_1v.device)
        return int(row.request.sampling.draw(logits_1v, seen_1t, [row.generator]))
    except Exception as error:
        return error


def logprobs_of(request: Request, logits_v: Tensor, id_: int) -> Logprobs | None:
    """The log-probabilities that a request wants of its next token `id_`."""
    if request.top_logprobs is None:
        return None
    logprob_v = logits_v.log_softmax(-1)
    top = logprob_v.topk(min(request.top_logprobs, len(logprob_v)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return Logprobs(logprob_v[id_].item(), list(pairs))
