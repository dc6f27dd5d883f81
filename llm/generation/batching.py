"""Continuous batching: requests join and leave a running batch at each step, each with settings and a seed of its own."""

# Shape legend: b rows of the batch, t tokens of a chunk, v vocabulary.

# `llm.generation.engine` stays beside this. Its rows have one length and end together, so that attention needs neither a
# mask nor positions by row, and a text may outgrow the context; here each row is somewhere else, and ends within it.

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from llm.errors import ConfigError
from llm.generation.engine import GREEDY, seeded
from llm.generation.mode import inference
from llm.generation.rules import Rule
from llm.generation.sampling import Sampling
from llm.generation.speculation import looked_up
from llm.model import SlotCache, Transformer

Finish = Literal["stop", "length"]

# So many tokens that another row is about to read are taken from it, not read again: below, a pass for all costs less.
WORTH_WAITING = 16


@dataclass(frozen=True, eq=False)
class Request:
    """What one text is to be: the tokens it goes on from, when it ends, and how its tokens are drawn.

    seed: the same one gives the same text, whatever else is in the batch, but for what rounding decides between
    tokens that are equally likely to seven digits; None draws one from the system. top_logprobs: how many of the
    likeliest tokens are told with each token, 0 for the token alone, None for nothing. rules: what changes logits
    before the draw.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    seed: int | None = None
    stop_ids: Collection[int] = ()
    top_logprobs: int | None = None
    rules: Sequence[Rule] = ()


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


@dataclass
class _Row:
    """A row of the cache: the tokens whose keys and values it holds, and the request that it works for."""

    held: list[int] = field(default_factory=list)
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
    def unread(self) -> int:
        """How many tokens of the prompt have not been read."""
        return len(self.tokens) - len(self.held)

    def draw(self, logits_1v: Tensor) -> Tensor:
        """The next token (1,)."""
        assert self.request is not None
        assert self.generator is not None
        sampling = self.request.sampling
        for rule in self.request.rules:
            logits_1v = rule(logits_1v, self.new)
        # A list of a thousand takes as long to become a tensor as the draw itself, and few need it.
        seen = self.tokens if sampling.repetition_penalty is not None else []
        seen_1t = torch.tensor([seen], dtype=torch.long, device=logits_1v.device)
        return sampling.draw(logits_1v, seen_1t, self.generator)

    def finish(self) -> Finish | None:
        """Why the newest token is the last one."""
        assert self.request is not None
        if self.tokens[-1] in self.request.stop_ids:
            return "stop"
        return "length" if len(self.new) >= self.request.max_new_tokens else None


class BatchEngine:
    """Writes many texts with one decoder. `add` requests, then `step` while `busy`; not for several threads.

    Rows of the cache that write come first, side by side, so that a step reads them without copying; behind them those
    whose prompts are being read, then those that are free. A free row keeps what it holds: a prompt that begins like what
    any row holds, be it a chat's history or a shared system prompt, takes that over.
    """

    def __init__(self, model: Transformer, *, rows: int, chunk: int = 256, speculate: int = 0) -> None:
        """`rows` are as many texts at a time; `chunk` tokens of prompts at most are read between two steps.

        While one text alone is written, a step checks `speculate` guesses of its next tokens at most.

        Raises:
            ConfigError: the model is no decoder, or reads prompts whole.
        """
        if not goes_on(model):
            raise ConfigError(f"architecture={model.config.architecture}: only decoders write in batches.")
        if model.config.prefix_lm:
            raise ConfigError(
                "prefix_lm=true: the model reads each prompt whole, on both sides, and what writes several texts at a time "
                "reads them in parts. llm generate run=… prompt=… writes one."
            )
        weight = next(model.parameters())
        self.model, self.device, self.chunk, self.speculate = model, weight.device, chunk, speculate
        self.waiting: deque[Request] = deque()
        self._cache = SlotCache(model.config, rows, device=weight.device, dtype=weight.dtype)
        self._rows = [_Row() for _ in range(rows)]
        self._writing = self._reading = 0
        self._clock = 0

    @property
    def rows(self) -> int:
        """How many texts are written at a time."""
        return len(self._rows)

    @property
    def running(self) -> int:
        """How many requests hold a row."""
        return sum(row.request is not None for row in self._rows)

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self.waiting) or self.running > 0

    def add(self, request: Request) -> None:
        """Let a request wait for its row.

        Raises:
            ConfigError: it has no prompt, or more tokens than the context.
        """
        if not request.prompt or request.max_new_tokens < 1:
            raise ConfigError("A request needs a token to go on from, and max_new_tokens of 1 or more.")
        length, room = len(request.prompt) + request.max_new_tokens, self.model.config.context_length
        if length > room:
            raise ConfigError(
                f"{len(request.prompt)} tokens of prompt and max_new_tokens={request.max_new_tokens} make {length}; "
                f"the model's context is {room}."
            )
        self.waiting.append(request)

    def cancel(self, request: Request) -> None:
        """Forget a request; its row is free for the next step. One that has finished is no error."""
        if request in self.waiting:
            self.waiting.remove(request)
        for index, row in enumerate(self._rows):
            if row.request is request:
                self._free(index)
                return

    def clear(self) -> None:
        """Forget all requests and all that the rows hold."""
        self.waiting.clear()
        self._rows = [_Row() for _ in self._rows]
        self._writing = self._reading = 0

    def step(self) -> list[Token]:
        """One more token of every request that is being written, and some of the prompts that wait.

        Raises:
            TrainingError: the model's scores are not finite; `clear` makes the engine fit for use again.
        """
        self._clock += 1
        with inference(self.model):
            return [*self._write(), *self._read()]

    def run(self, requests: Sequence[Request]) -> Iterator[Token]:
        """The tokens of all `requests` as they come, the engine's own others included."""
        for request in requests:
            self.add(request)
        while self.busy:
            yield from self.step()

    def _write(self) -> list[Token]:
        rows = self._rows[: self._writing]
        if not rows:
            return []
        if len(rows) == 1 and (guesses := self._guesses(rows[0])):
            return self._write_ahead(rows[0], guesses)
        token_b1 = torch.tensor([row.tokens[-1:] for row in rows], device=self.device)
        cache = self._cache.some(0, [len(row.held) for row in rows])
        logits_bv = self.model.head(self.model.encode(token_b1, cache))[:, 0]
        for row in rows:
            row.held.append(row.tokens[-1])
        return self._draw(rows, logits_bv)

    def _guesses(self, row: _Row) -> list[int]:
        """What may come after the row's newest token, as far as it may go on."""
        assert row.request is not None
        most = min(self.speculate, row.request.max_new_tokens - len(row.new) - 1)
        return looked_up(row.tokens, most) if most > 0 else []

    def _write_ahead(self, row: _Row, guesses: list[int]) -> list[Token]:
        """The tokens that are drawn after the newest and after each guess, up to the first that was guessed wrong.

        Each is drawn as it would be without guesses, whatever the sampling; a wrong guess's keys are overwritten.
        """
        tokens_1t = torch.tensor([[row.tokens[-1], *guesses]], device=self.device)
        hidden_1td = self.model.encode(tokens_1t, self._cache.one(0, len(row.held)))
        drawn: list[Token] = []
        for guess, logits_1v in zip([*guesses, None], self.model.head(hidden_1td)[0].split(1), strict=True):
            row.held.append(row.tokens[-1])
            drawn += self._draw([row], logits_1v)
            if drawn[-1].id != guess or drawn[-1].finish is not None:
                break
        return drawn

    def _read(self) -> list[Token]:
        """Read up to a chunk of prompts; a prompt's end gives its first token."""
        drawn: list[Token] = []
        budget = self.chunk
        self._begin_waiting()
        while budget > 0 and self._reading:
            rows, length = self._next_to_read(budget)
            budget -= len(rows) * length
            drawn += self._read_at_once(rows, length)
            self._begin_waiting()
        return drawn

    def _next_to_read(self, budget: int) -> tuple[list[_Row], int]:
        """The rows that are read in one pass, and how many tokens of each at most.

        They are as many as fit, each to its prompt's end; a prompt that is longer than the budget is read alone.
        """
        reading = self._rows[self._writing : self._writing + self._reading]
        rows, length, start = reading[:1], min(reading[0].unread, budget), len(reading[0].held)
        if length < reading[0].unread:
            return rows, length
        for row in reading[1:]:
            longest, last = max(length, row.unread), max(start, len(row.held))
            if longest * (len(rows) + 1) > budget or last + longest > self.model.config.context_length:
                break
            rows.append(row)
            length, start = longest, last
        return rows, length

    def _read_at_once(self, rows: Sequence[_Row], length: int) -> list[Token]:
        """Read up to `length` tokens of each row's prompt; what fills shorter ones up is never seen."""
        pieces = [row.tokens[len(row.held) :][:length] for row in rows]
        tokens_bt = torch.tensor(
            [[*piece, *[0] * (length - len(piece))] for piece in pieces], device=self.device
        )
        starts = [len(row.held) for row in rows]
        first = self._writing
        cache = self._cache.one(first, starts[0]) if len(rows) == 1 else self._cache.some(first, starts)
        hidden_btd = self.model.encode(tokens_bt, cache)
        for row, piece in zip(rows, pieces, strict=True):
            row.held += piece
        if rows[0].unread:
            return []
        self._writing += len(rows)
        self._reading -= len(rows)
        last_b = torch.tensor([len(piece) - 1 for piece in pieces], device=self.device)
        last_b1d = hidden_btd.take_along_dim(last_b[:, None, None], dim=1)
        return self._draw(rows, self.model.head(last_b1d)[:, 0])

    def _begin_waiting(self) -> None:
        """Give rows to those that wait, as long as there are any and nobody is about to read what the next one needs."""
        while self.waiting and self._writing + self._reading < len(self._rows):
            prompt = list(self.waiting[0].prompt)
            # The last token is always read, since it gives the first logits.
            held = [_common_start(row.held, prompt[:-1]) for row in self._rows]
            reading = self._rows[self._writing : self._writing + self._reading]
            soon = max((_common_start(row.tokens, prompt[:-1]) for row in reading), default=0)
            if soon - max(held) >= WORTH_WAITING:
                return
            self._begin(self.waiting.popleft(), prompt, held)

    def _begin(self, request: Request, prompt: list[int], held: Sequence[int]) -> None:
        """Give a request the first free row, with all that any row holds of its prompt."""
        taken = self._writing + self._reading
        best = max(range(len(held)), key=held.__getitem__)
        row = best
        if best < taken or held[best] < len(self._rows[best].held):
            row = min(range(taken, len(held)), key=lambda index: self._rows[index].last_used)
        if row != best:
            self._cache.copy(best, row, held[best])
        generator = seeded(self.device, request.seed)
        self._rows[row] = _Row(prompt[: held[best]], self._clock, request, prompt, generator)
        self._swap(row, taken)
        self._reading += 1

    def _draw(self, rows: Sequence[_Row], logits_bv: Tensor) -> list[Token]:
        logits_bv = logits_bv.float()
        drawn_b = torch.cat([row.draw(logits_bv[i : i + 1]) for i, row in enumerate(rows)])
        tokens = []
        for row, id_, logits_v in zip(rows, drawn_b.tolist(), logits_bv, strict=True):
            assert row.request is not None
            row.tokens.append(id_)
            tokens.append(Token(row.request, id_, _logprobs(row.request, logits_v, id_), row.finish()))
        for token in tokens:
            if token.finish is not None:
                self.cancel(token.request)
        return tokens

    def _free(self, index: int) -> None:
        """Let a row go, and close the gap that it leaves."""
        row = self._rows[index]
        row.request, row.generator, row.last_used = None, None, self._clock
        if index < self._writing:
            self._writing -= 1
            self._swap(index, self._writing)
            index = self._writing
        else:
            self._reading -= 1
        self._swap(index, self._writing + self._reading)

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        rows = self._rows
        self._cache.swap(one, other, max(len(rows[one].held), len(rows[other].held)))
        rows[one], rows[other] = rows[other], rows[one]


def goes_on(model: Transformer) -> bool:
    """Whether a model goes on from a prompt; the others read a text whole, as `llm.generation.answer` asks them to."""
    return model.config.architecture == "decoder" and not model.config.labels


def rows_within(model: Transformer, rows: int, gib: float) -> int:
    """How many of `rows` have a cache within `gib`; a ConfigError where not one has."""
    row_bytes = SlotCache.row_bytes(model.config, next(model.parameters()).dtype)
    fitting = min(rows, int(gib * 2**30 / row_bytes))
    if fitting < 1:
        raise ConfigError(
            f"cache_gib={gib}: one text of the whole context takes {row_bytes / 2**30:.3g} GiB."
        )
    return fitting


def _logprobs(request: Request, logits_v: Tensor, id_: int) -> Logprobs | None:
    if request.top_logprobs is None:
        return None
    logprob_v = logits_v.log_softmax(-1)
    top = logprob_v.topk(min(request.top_logprobs, len(logprob_v)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return Logprobs(logprob_v[id_].item(), list(pairs))


def _common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
