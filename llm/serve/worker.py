"""The thread that a model works in: it steps the batch, and between two steps takes what came in."""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from llm.errors import TrainingError, UserError
from llm.generation import BatchEngine, Request, Token

Result = TypeVar("Result")
Listener = Callable[[Token | Exception], None]
# Calls a function in the thread of those that listen.
HandOver = Callable[[Callable[[], None]], object]
FAILED = "The model failed; the server's log says how."
LOG = logging.getLogger(__name__)


class Full(Exception):
    """As much waits as may wait."""


class Worker:
    """Runs one model. Everything may be called from any thread; listeners are called where `start` says.

    `engine` is None for a model that writes nothing token by token: it responds by `call`.
    """

    def __init__(self, engine: BatchEngine | None, *, rows: int, waiting: int) -> None:
        """`waiting` requests at most wait beside those that `rows` hold."""
        self._engine, self._room = engine, rows + waiting
        if engine is not None:
            engine.on_failure = self._fail_one
        self._rows = rows
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls: deque[Callable[[], None]] = deque()
        self._has_called = False
        self._listeners: dict[Request, Listener] = {}
        self._lock = threading.Lock()
        self.in_flight = 0
        self._thread = threading.Thread(target=self._work, name="llm-worker", daemon=True)

    @property
    def running(self) -> int:
        """How much is being worked on."""
        return min(self.in_flight, self._rows)

    def start(self, hand_over: HandOver) -> None:
        """Begin to work; `hand_over` is given what tells the listeners, once a step for all of its tokens."""
        self._hand_over = hand_over
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is under way; what is unfinished is told nothing more."""
        self._inbox.put(None)
        self._thread.join()

    def submit(self, requests: Sequence[Request], listener: Listener) -> None:
        """Let `requests` be written, all or none; `listener` hears each token, or what went wrong.

        Raises:
            Full: too much waits already.
        """
        self.enter(len(requests))
        self._inbox.put(lambda: self._add(requests, listener))

    def cancel(self, requests: Sequence[Request]) -> None:
        """Forget what of `requests` has not finished, before the next step."""
        self._inbox.put(lambda: self._cancel(requests))

    def call(self, function: Callable[[], Result]) -> "Future[Result]":
        """Run `function` between two steps, for one who has entered; a step of what is being written goes before the next."""
        future: Future[Any] = Future()
        self._inbox.put(lambda: self._calls.append(partial(_answer, function, future)))
        return future

    def enter(self, number: int = 1) -> None:
        """Take the place of `number` requests.

        Raises:
            Full: too much waits already.
        """
        with self._lock:
            # A single request may be larger than all the room, but then it waits for an empty one.
            if self.in_flight and self.in_flight + number > self._room:
                raise Full
            self.in_flight += number

    def leave(self, number: int = 1) -> None:
        """Give back the places that were taken by `enter`."""
        with self._lock:
            self.in_flight -= number

    def _work(self) -> None:
        while (do := self._next()) is not None:
            try:
                do()
            except Exception as error:
                LOG.exception("the model failed")
                self._fail(_told(error))

    def _next(self) -> Callable[[], None] | None:
        """What came in first, else calls and steps of what is being written in turn; None at the end."""
        busy = self._engine is not None and self._engine.busy
        try:
            return self._inbox.get(block=not busy and not self._calls)
        except queue.Empty:
            # Whoever calls again and again mustn't keep the others from their next token, nor they him from his answer.
            self._has_called = bool(self._calls) and not (busy and self._has_called)
            return self._calls.popleft() if self._has_called else self._step

    def _step(self) -> None:
        assert self._engine is not None
        heard: list[tuple[Listener, Token | Exception]] = []
        for token in self._engine.step():
            heard.append((self._listeners[token.request], token))
            if token.finish is not None:
                del self._listeners[token.request]
                self.leave()
        if heard:  # not where the step read a part of a prompt
            self._hand_over(partial(_tell, heard))

    def _fail_one(self, request: Request, error: Exception) -> None:
        """Tell the one whose request failed; the others go on."""
        LOG.error("a request failed", exc_info=error)
        listener = self._listeners.pop(request)
        self.leave()
        self._hand_over(partial(_tell, [(listener, _told(error))]))

    def _fail(self, error: Exception) -> None:
        """Tell everybody, and begin anew."""
        assert self._engine is not None
        self._engine.clear()
        listeners, self._listeners = self._listeners, {}
        self.leave(len(listeners))
        self._hand_over(partial(_tell, [(listener, error) for listener in listeners.values()]))

    def _add(self, requests: Sequence[Request], listener: Listener) -> None:
        assert self._engine is not None
        self._listeners.update(dict.fromkeys(requests, listener))
        try:
            for request in requests:
                self._engine.add(request)
        except UserError as error:  # of these alone: what is being written goes on
            self._cancel(requests)
            self._hand_over(partial(_tell, [(listener, error)]))

    def _cancel(self, requests: Sequence[Request]) -> None:
        assert self._engine is not None
        for request in requests:
            self._engine.cancel(request)
            if self._listeners.pop(request, None) is not None:
                self.leave()


def _answer(function: Callable[[], Any], future: "Future[Any]") -> None:
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(function())
    except Exception as error:
        future.set_exception(error)


def _told(error: Exception) -> UserError:
    """What a client is told of an error: ours as it is, of any other that there was one."""
    return error if isinstance(error, UserError) else TrainingError(FAILED)


def _tell(heard: Sequence[tuple[Listener, Token | Exception]]) -> None:
    for listener, what in heard:
        listener(what)
