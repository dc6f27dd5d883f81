"""What a request must be before anything of it is read: from whom, for whom, how large and how soon."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm.errors import ConfigError
from llm.serve.errors import ApiError

MOST_BYTES = 1_000_000
# So much is read and forgotten before a refusal: whoever is still sending when a connection closes never sees why.
MOST_DISCARDED = 16 * MOST_BYTES
BODY_SECONDS = 20.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN = ("/health",)
GOOGLE_KEY = "x-goog-api-key"  # where Google's clients put a key

Observe = Callable[[Scope, int], None]


@dataclass(frozen=True)
class Guarding:
    """Who is let in. `hosts` are the names that a browser may know the server by; None for any."""

    api_key: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK

    @classmethod
    def of(cls, host: str, api_key: str | None) -> "Guarding":
        """Rules for a server that listens on `host`.

        Raises:
            ConfigError: others can reach it, and there is no key; or the key is none that a header can carry.
        """
        if api_key is not None and not (
            api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key != ""
        ):
            raise ConfigError("api_key: it must be printable ASCII, without spaces around it.")
        if is_loopback(host):
            return cls(api_key)
        if api_key is None:
            raise ConfigError(
                f"host={host}: others can reach this address. Set api_key= (or LLM_API_KEY), or leave host= out."
            )
        return cls(api_key, None)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: refuses strangers, and hands on bodies that are whole and small."""

    def __init__(self, app: ASGIApp, guarding: Guarding, observe: Observe) -> None:
        self._app, self._guarding, self._observe = app, guarding, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
                self._observe(scope, message["status"])
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            receive = await self._read(receive)
        except ApiError as error:
            await error.response(scope)(scope, receive, answer)
            return
        await self._app(scope, receive, answer)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._guarding.hosts is not None and _name(host) not in self._guarding.hosts:
            raise ApiError(403, "This server isn't known by that Host.", code="host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(403, "Pages of other origins may not use this server.", code="origin")
        if path not in OPEN and not self._knows_key(headers):
            # Basic is what browsers can ask a person for: any name, and the key as password.
            raise ApiError(401, "Wrong or missing API key.", code="invalid_api_key", WWW_Authenticate="Basic")

    def _knows_key(self, headers: Headers) -> bool:
        key = self._guarding.api_key
        if key is None:
            return True
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            credentials = _password(credentials)
        elif scheme.lower() != "bearer":
            credentials = headers.get(GOOGLE_KEY, "")
        return hmac.compare_digest(credentials.encode("utf-8", "replace"), key.encode())

    async def _read(self, receive: Receive) -> Receive:
        """A `receive` that gives the whole body at once, then what else comes."""
        try:
            body = await asyncio.wait_for(_body(receive), BODY_SECONDS)
        except TimeoutError:
            message = f"The request wasn't whole after {BODY_SECONDS:.0f} s."
            raise ApiError(408, message, Connection="close") from None
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay


async def _body(receive: Receive) -> bytes:
    body, size, more = bytearray(), 0, True
    while more and size <= MOST_DISCARDED:
        message = await receive()
        piece = message.get("body", b"")
        size += len(piece)
        if size <= MOST_BYTES:
            body += piece
        more = message.get("more_body", False)
    if size > MOST_BYTES:
        raise ApiError(413, f"A request has at most {MOST_BYTES} bytes.", Connection="close")
    return bytes(body)


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
