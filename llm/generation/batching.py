"""Continuous batching: requests join and leave a running batch at each step, each with settings and a seed of its own.

Shapes: b rows of the batch, t tokens of a chunk, s tokens of a source, v vocabulary.
"""

# `llm.generation.engine` stays beside this. Its rows have one length and end together, so that attention needs neither a
# mask nor positions by row, and a text may outgrow the context; here each row is somewhere else, and ends within it.

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llm.adapter import using
from llm.errors import ConfigError
from llm.generation.abilities import is_generative, kind_of
from llm.generation.context import check_fits
from llm.generation.engine import seeded
from llm.generation.mode import inference
from llm.generation.request import Request, Token
from llm.generation.row import Row, logprobs_of, next_tokens
from llm.generation.speculation import Guess, looked_up
from llm.model import Cache, CachePool, Transformer
from llm.model.attention import KeysValues
from llm.model.block import Memory
from llm.model.mask import PADDING

# So many tokens that another row is about to read are taken from it, not read again: below, a pass for all costs less.
WORTH_WAITING = 16


class BatchEngine:
    """Writes many texts with one model. `add` requests, then `step` while `busy`; not for several threads.

    Rows of the cache that decode come first, side by side, so that a step reads them without copying; behind them those
    that prefill (their prompts are being read), then those that are free. A free row keeps what it holds: a prompt that
    begins like what any row holds, be it a chat's history or a shared system prompt, takes that over. An
    encoder-decoder's rows have a second cache, of what its decoder looks at of their sources.

    `on_failure` is told of a request whose own rule or draw raised, and of what; the request is then forgotten, and the
    others go on. Until it is set, `step` raises that.
    """

    on_failure: Callable[[Request, Exception], None]

    def __init__(
        self,
        model: Transformer,
        *,
        rows: int,
        chunk: int = 256,
        speculate: int = 0,
        guess: Guess = looked_up,
    ) -> None:
        """`rows` are as many texts at a time; `chunk` tokens of prompts at most are read between two steps.

        While one text alone is written, a step checks `speculate` of its next tokens at most, as `guess` has them.

        Raises:
            ConfigError: the model doesn't write.
        """
        if not is_generative(model):
            raise ConfigError(
                f"Of models only decoders and encoder-decoders write in batches, and this is {kind_of(model)}."
            )
        weight = next(model.parameters())
        self.model, self.device, self.chunk = model, weight.device, chunk
        self.speculate, self._guess = speculate, guess
        # Each position of such a prompt sees all others, so that it is read in one pass, and shares nothing with another.
        self._reads_prompts_whole = model.config.prefix_lm
        self.waiting: deque[Request] = deque()
        make = partial(CachePool, model.config, rows, device=weight.device, dtype=weight.dtype)
        self._cache = make()
        self._sources = make() if model.reads_source else None
        self._rows = [Row() for _ in range(rows)]
        self._decoding = self._prefilling = 0
        self._clock = 0
        self.on_failure = _raise

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
            ConfigError: it has no prompt, or no source where the model reads one.
            ContextError: it has more tokens than the context.
        """
        if not request.prompt or request.max_new_tokens < 1:
            raise ConfigError("A request needs a token to go on from, and max_new_tokens of 1 or more.")
        if bool(request.source) != (self._sources is not None):
            wanted = "takes no" if request.source else "needs a"
            raise ConfigError(f"architecture={self.model.config.architecture} {wanted} source")
        context, new = self.model.config.context_length, request.max_new_tokens
        check_fits(context, len(request.source), what="The source")
        advice = "Shorten it, or lower max_new_tokens."
        check_fits(context, len(request.prompt), new, what="The prompt", advice=advice)
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
        self._rows = [Row() for _ in self._rows]
        self._decoding = self._prefilling = 0

    def step(self) -> list[Token]:
        """One more token of every request that is being written, and some of the prompts that wait.

        Raises:
            TrainingError: the model's scores are not finite, and `on_failure` isn't set; `clear` makes the engine fit for
                use again.
        """
        self._clock += 1
        with inference(self.model):
            return [*self._decode(), *self._prefill()]

    def run(self, requests: Sequence[Request]) -> Iterator[Token]:
        """The tokens of all `requests` as they come, the engine's own others included."""
        for request in requests:
            self.add(request)
        while self.busy:
            yield from self.step()

    def _decode(self) -> list[Token]:
        rows = self._rows[: self._decoding]
        if not rows:
            return []
        if len(rows) == 1 and (guesses := self._guesses(rows[0])):
            return self._verify_guesses(rows[0], guesses)
        token_b1 = torch.tensor([row.tokens[-1:] for row in rows], device=self.device)
        cache = self._cache.rows_view(0, [len(row.cached) for row in rows])
        logits_bv = self.model.head(self._hidden_states(token_b1, cache, 0, rows))[:, 0]
        for row in rows:
            row.cached.append(row.tokens[-1])
        return self._draw(rows, logits_bv)

    def _guesses(self, row: Row) -> list[int]:
        """What may come after the row's newest token, as far as it may go on."""
        assert row.request is not None
        most = min(self.speculate, row.request.max_new_tokens - len(row.new) - 1)
        return self._guess(row.tokens, most) if most > 0 else []

    def _verify_guesses(self, row: Row, guesses: list[int]) -> list[Token]:
        """The tokens that are drawn after the newest and after each guess, up to the first that was guessed wrong.

        Each is drawn as it would be without guesses, whatever the sampling; a wrong guess's keys are overwritten.
        """
        tokens_1t = torch.tensor([[row.tokens[-1], *guesses]], device=self.device)
        hidden_1td = self._hidden_states(tokens_1t, self._cache.row_view(0, len(row.cached)), 0, [row])
        drawn: list[Token] = []
        for guess, logits_1v in zip([*guesses, None], self.model.head(hidden_1td)[0].split(1), strict=True):
            row.cached.append(row.tokens[-1])
            drawn += self._draw([row], logits_1v)
            if row.request is None or drawn[-1].id != guess:
                break
        return drawn

    def _prefill(self) -> list[Token]:
        """Read up to a chunk of prompts; a prompt's end gives its first token."""
        drawn: list[Token] = []
        budget = self.chunk
        self._begin_waiting()
        while budget > 0 and self._prefilling:
            rows, length = self._next_to_prefill(budget)
            budget -= len(rows) * max(length, *(row.width for row in rows))
            drawn += self._prefill_rows(rows, length)
            self._begin_waiting()
        return drawn

    def _next_to_prefill(self, budget: int) -> tuple[list[Row], int]:
        """The rows that are read in one pass, and how many tokens of each at most.

        They are as many as fit, each to its prompt's end; a prompt that is longer than the budget is read alone.
        """
        prefilling = self._rows[self._decoding : self._decoding + self._prefilling]
        if self._reads_prompts_whole:
            budget = max(budget, prefilling[0].to_prefill)
        rows, length, start = prefilling[:1], min(prefilling[0].to_prefill, budget), len(prefilling[0].cached)
        width = prefilling[0].width
        if length < prefilling[0].to_prefill:
            return rows, length
        for row in prefilling[1:]:
            longest, last = max(length, row.to_prefill), max(start, len(row.cached))
            width = max(width, row.width)
            if width * (len(rows) + 1) > budget or last + longest > self.model.config.context_length:
                break
            rows.append(row)
            length, start = longest, last
        return rows, length

    def _prefill_rows(self, rows: Sequence[Row], length: int) -> list[Token]:
        """Read up to `length` tokens of each row's prompt; what fills shorter ones up is never seen."""
        if self._sources is not None:
            self._encode_sources(self._sources, rows)
        pieces = [row.tokens[len(row.cached) :][:length] for row in rows]
        tokens_bt = torch.tensor(
            [[*piece, *[0] * (length - len(piece))] for piece in pieces], device=self.device
        )
        starts = [len(row.cached) for row in rows]
        first = self._decoding
        cache = (
            self._cache.row_view(first, starts[0]) if len(rows) == 1 else self._cache.rows_view(first, starts)
        )
        hidden_btd = self._hidden_states(tokens_bt, cache, first, rows, [len(piece) for piece in pieces])
        for row, piece in zip(rows, pieces, strict=True):
            row.cached += piece
        if rows[0].to_prefill:
            return []
        self._decoding += len(rows)
        self._prefilling -= len(rows)
        last_b = torch.tensor([len(piece) - 1 for piece in pieces], device=self.device)
        last_b1d = hidden_btd.take_along_dim(last_b[:, None, None], dim=1)
        return self._draw(rows, self.model.head(last_b1d)[:, 0])

    def _encode_sources(self, sources: CachePool, rows: Sequence[Row]) -> None:
        """Let the rows' sources be read that aren't yet, in one pass, and keep what the decoder looks at of them."""
        unread = [row for row in rows if not row.has_source]
        if not unread:
            return
        pieces = [torch.tensor(row.source, device=self.device) for row in unread]
        source_bs = pad_sequence(pieces, batch_first=True, padding_value=PADDING)
        with self._adapted(unread):
            memory = self.model.encode_source(
                source_bs.clamp(min=0), torch.where(source_bs == PADDING, PADDING, 0)
            )
        for number, row in enumerate(unread):
            layers = [[part[number] for part in layer] for layer in memory.layers]
            sources.write_row(self._rows.index(row), layers)
            row.has_source = True

    def _hidden_states(
        self,
        tokens_bt: Tensor,
        cache: Cache,
        first: int,
        rows: Sequence[Row],
        prompt_lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """The hidden states of `rows`, which are those from `first` on, each with its adapter and its source.

        `prompt_lengths` says where `tokens_bt` are prompts how long each is; what stands behind it fills the row up.
        """
        with self._adapted(rows):
            if self._sources is None:
                prefix_b = None
                if self._reads_prompts_whole and prompt_lengths is not None:
                    prefix_b = torch.tensor(prompt_lengths, device=self.device)
                return self.model.hidden_states(tokens_bt, cache, prefix_b=prefix_b)
            lengths = [len(row.source) for row in rows]
            layers = [KeysValues(*layer) for layer in self._sources.read_rows(first, lengths)]
            position_s = torch.arange(max(lengths), device=self.device)
            is_own_bs = position_s < torch.tensor(lengths, device=self.device)[:, None]
            documents_bs = torch.where(is_own_bs, 0, PADDING)
            return self.model.hidden_states(tokens_bt, cache, memory=Memory(layers, documents_bs))

    def _adapted(self, rows: Sequence[Row]) -> AbstractContextManager[None]:
        return using([row.adapter for row in rows], self.device)

    def _begin_waiting(self) -> None:
        """Give rows to those that wait, as long as there are any and nobody is about to read what the next one needs."""
        while self.waiting and self._decoding + self._prefilling < len(self._rows):
            request = self.waiting[0]
            if self._reads_prompts_whole:
                self._begin(self.waiting.popleft(), [0] * len(self._rows))
                continue
            reusable = [row.shared(row.cached, request) for row in self._rows]
            prefilling = self._rows[self._decoding : self._decoding + self._prefilling]
            soon = max(
                (row.shared(row.tokens, request) + row.source_shared(request) for row in prefilling),
                default=0,
            )
            now = max(
                count + row.has_source * row.source_shared(request)
                for count, row in zip(reusable, self._rows, strict=True)
            )
            if soon - now >= WORTH_WAITING:
                return
            self._begin(self.waiting.popleft(), reusable)

    def _begin(self, request: Request, reusable: Sequence[int]) -> None:
        """Give a request the first free row, with all that any row holds of its prompt: of each, `reusable` tokens."""
        first_free = self._decoding + self._prefilling
        has_source = [row.has_source and row.is_like(request) for row in self._rows]
        best = max(range(len(reusable)), key=lambda index: (has_source[index], reusable[index]))
        target = best
        if best < first_free or reusable[best] < len(self._rows[best].cached):
            target = min(range(first_free, len(reusable)), key=lambda index: self._rows[index].last_used)
        if target != best:
            self._cache.copy(best, target, reusable[best])
            if self._sources is not None and has_source[best]:
                self._sources.copy(best, target, len(request.source))
        prompt = list(request.prompt)
        self._rows[target] = Row(
            cached=prompt[: reusable[best]],
            adapter=request.adapter,
            source=request.source,
            has_source=has_source[best],
            last_used=self._clock,
            request=request,
            tokens=prompt,
            generator=seeded(self.device, request.seed),
        )
        self._swap(target, first_free)
        self._prefilling += 1

    def _draw(self, rows: Sequence[Row], logits_bv: Tensor) -> list[Token]:
        logits_bv = logits_bv.float()
        tokens: list[Token] = []
        failed: dict[Request, Exception] = {}
        for row, drawn, logits_v in zip(rows, next_tokens(rows, logits_bv), logits_bv, strict=True):
            assert row.request is not None
            if isinstance(drawn, Exception):
                failed[row.request] = drawn
                continue
            row.tokens.append(drawn)
            tokens.append(Token(row.request, drawn, logprobs_of(row.request, logits_v, drawn), row.finish()))
        for request in [*failed, *(token.request for token in tokens if token.finish is not None)]:
            self.cancel(request)
        for request, error in failed.items():
            self.on_failure(request, error)
        return tokens

    def _free(self, index: int) -> None:
        """Let a row go, and close the gap that it leaves."""
        row = self._rows[index]
        row.request, row.generator, row.last_used = None, None, self._clock
        if index < self._decoding:
            self._decoding -= 1
            self._swap(index, self._decoding)
            index = self._decoding
        else:
            self._prefilling -= 1
        self._swap(index, self._decoding + self._prefilling)

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        rows = self._rows
        self._cache.swap(one, other, max(len(rows[one].cached), len(rows[other].cached)))
        if self._sources is not None:
            self._sources.swap(one, other, max(len(rows[one].source), len(rows[other].source)))
        rows[one], rows[other] = rows[other], rows[one]


def _raise(_: Request, error: Exception) -> NoReturn:
    raise error


def rows_within(model: Transformer, rows: int, gib: float, draft: Transformer | None = None) -> int:
    """How many of `rows` have a cache within `gib`, beside the one row of a draft; a ConfigError where not one has."""
    row_bytes, beside = _row_bytes(model), 0 if draft is None else _row_bytes(draft)
    fitting = min(rows, int((gib * 2**30 - beside) / row_bytes))
    if fitting < 1:
        raise ConfigError(
            f"cache_gib: {gib:.3g} GiB are for this model, and one text of the whole context takes "
            f"{(row_bytes + beside) / 2**30:.3g}."
        )
    return fitting


def _row_bytes(model: Transformer) -> int:
    row_bytes = CachePool.row_bytes(model.config, next(model.parameters()).dtype)
    return row_bytes * (2 if model.reads_source else 1)
