"""From a worker's tokens to pieces of text for one client, who may leave at any time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from starlette.requests import Request as HttpRequest

from llm.generation import Request, TextWriter, Token
from llm.serve.errors import ApiError
from llm.serve.grammar import Grammar
from llm.serve.metrics import Metrics, TokenClock
from llm.serve.served import Served
from llm.serve.worker import Full

Item = TypeVar("Item")
Found = TypeVar("Found")


class Gone(Exception):
    """The client has left."""


class Placed(NamedTuple):
    """A token, and the number of whole characters that the text has before it."""

    token: Token
    offset: int


class Piece(NamedTuple):
    """What comes next of the text `number`; `finish` says why it is the last."""

    number: int
    text: str
    tokens: list[Placed]
    finish: str | None


@dataclass
class _Text:
    """One text under way."""

    number: int
    writer: TextWriter
    clock: TokenClock

    def add(self, token: Token) -> Piece:
        """What a token adds."""
        self.clock.tick()
        placed = Placed(token, self.writer.length)
        said = self.writer.take(token)
        finish = "stop" if self.writer.stopped else token.finish
        if finish == "stop" and any(
            isinstance(rule, Grammar) and not rule.complete for rule in token.request.rules
        ):
            finish = "length"  # a text that had to be JSON, and isn't
        return Piece(self.number, said, [placed], finish)


@dataclass
class Completion:
    """Everything that was written for one request, as it came together."""

    texts: list[str]
    tokens: list[list[Placed]]
    finishes: list[str]
    read: int
    written: int = field(default=0)

    @classmethod
    def empty(cls, number: int, read: int) -> "Completion":
        """Before the first piece of `number` texts."""
        return cls([""] * number, [[] for _ in range(number)], ["length"] * number, read)

    def add(self, piece: Piece) -> None:
        """Take a piece in."""
        self.texts[piece.number] += piece.text
        self.tokens[piece.number] += piece.tokens
        self.written += len(piece.tokens)
        if piece.finish is not None:
            self.finishes[piece.number] = piece.finish

    def usage(self) -> dict[str, int]:
        """The tokens, as OpenAI counts them."""
        return {
            "prompt_tokens": self.read,
            "completion_tokens": self.written,
            "total_tokens": self.read + self.written,
        }


class Writing:
    """The texts that one client asked for; enter it to submit them, leave it to give their rows back."""

    def __init__(
        self,
        served: Served,
        requests: Sequence[Request],
        stops: Sequence[str],
        read: int,
        http: HttpRequest,
        metrics: Metrics,
    ) -> None:
        """`read` tokens are counted as read, once they are submitted: several texts may have one prompt."""
        self._served, self._requests, self._http = served, requests, http
        self._read, self._counter = read, metrics.tokens.labels(served.name, "read")
        self._queue: asyncio.Queue[Token | Exception] = asyncio.Queue()
        self._texts = {
            request: _Text(number, TextWriter(served.tokenizer, stops), metrics.clock(served.name))
            for number, request in enumerate(requests)
        }
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Writing":
        with refused_when_full(self._served):
            self._served.worker.submit(self._requests, self._queue.put_nowait)
        self._counter.inc(self._read)
        self._watch = asyncio.create_task(self._until_gone())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._texts:
            self._served.worker.cancel(list(self._texts))

    async def pieces(self) -> AsyncIterator[Piece]:
        """What comes, until every text is finished.

        Raises:
            Gone: the client has left.
        """
        while self._texts:
            token = await self._queue.get()
            if isinstance(token, Exception):
                raise token
            text = self._texts.get(token.request)
            if text is None:  # a stop came in its text, and the engine had one more step under way
                continue
            piece = text.add(token)
            if piece.finish is not None:
                del self._texts[token.request]
                if token.finish is None:
                    self._served.worker.cancel([token.request])
            yield piece

    async def _until_gone(self) -> None:
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        # Here too: a stream that was never begun is never left.
        self._served.worker.cancel(list(self._texts))
        self._queue.put_nowait(Gone())


@contextlib.contextmanager
def refused_when_full(served: Served) -> Iterator[None]:
    """Turn a full queue into a 429."""
    try:
        yield
    except Full:
        seconds = max(1, served.worker.in_flight // served.rows)
        raise ApiError(
            429, "Too many requests wait; try again.", code="queue_full", Retry_After=str(seconds)
        ) from None


@contextlib.contextmanager
def _place(served: Served) -> Iterator[None]:
    """Be one of those whom the model's worker works for; an ApiError where too many wait."""
    with refused_when_full(served):
        served.worker.enter()
    try:
        yield
    finally:
        served.worker.leave()


async def in_pieces(
    served: Served,
    items: Sequence[Item],
    http: HttpRequest,
    find: Callable[[Sequence[Item]], Sequence[Found]],
    at_a_time: int = 1,
) -> list[Found]:
    """What `find` has to say of each item, so many at a time in the model's worker; others have their turn between.

    Raises:
        Gone: the client has left.
        ApiError: 429, too much waits already.
    """
    found: list[Found] = []
    with _place(served):
        for start in range(0, len(items), at_a_time):
            if await http.is_disconnected():
                raise Gone
            some = items[start : start + at_a_time]
            found += await asyncio.wrap_future(served.worker.call(partial(find, some)))
    return found
