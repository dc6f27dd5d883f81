"""The connections of the server: uvicorn's, of which none is kept that never says what it wants."""

import asyncio

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0


class Connection(H11Protocol):
    """A connection that is closed where a request's headers don't come whole in time.

    uvicorn alone closes those that had an answer and then send nothing, and keeps for ever what sends half a header, or
    nothing at all, until no file can be opened.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and wait on where it is no whole header."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the clock run from the first moment without headers, whatever comes of them meanwhile, to their end."""
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self.timeout_keep_alive_handler)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def server_of(app: ASGIApp, drain_seconds: int | None = None) -> uvicorn.Server:
    """What serves `app`; when it ends, what is under way has `drain_seconds` to finish, or all the time that it needs."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Connection,
            log_level="warning",
            # Addresses hold keys, where clients send them as Google's REST has it.
            access_log=False,
            timeout_graceful_shutdown=drain_seconds,
            server_header=False,
        )
    )
