"""What a request must be before anything of it is read: from whom, for whom, how large and how soon."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm.errors import ConfigError
from llm.serve.errors import GOOGLE_ROUTES, ApiError

MOST_BYTES = 1_000_000
# So much is read and forgotten before a refusal: whoever is still sending when a connection closes never sees why.
MOST_DISCARDED = 16 * MOST_BYTES
BODY_SECONDS = 20.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Whoever asks, under whatever name: probes use the machine's address, and what they are told gives nothing away.
OPEN = ("/health",)
GOOGLE_KEY = "x-goog-api-key"  # where Google's clients put a key

_AUTHORITY = re.compile(r"([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:\d+)?", re.IGNORECASE)

Observe = Callable[[Scope, int], None]


@dataclass(frozen=True)
class Guarding:
    """Who is let in.

    api_key: what clients must send; None asks for nothing. hosts: the names that a browser may know the server by; None
    for any. allowed_hosts: what a proxy before it is known by, with a port where that isn't the usual one; pages from
    there may use the server too.
    """

    api_key: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK
    allowed_hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, host: str, api_key: str | None, allowed_hosts: Sequence[str] = ()) -> "Guarding":
        """Rules for a server that listens on `host`, behind a proxy that is known by `allowed_hosts`.

        Raises:
            ConfigError: others can reach it, and there is no key; the key is none that a header can carry; or one of
                `allowed_hosts` is no host.
        """
        _check_key(api_key)
        _check_hosts(allowed_hosts)
        if api_key is None and not is_loopback(host):
            raise ConfigError(
                f"host={host}: others can reach this address. Set api_key= (or LLM_API_KEY), or leave host= out."
            )
        if api_key is None and allowed_hosts:
            raise ConfigError(
                f"allowed_hosts: others reach the server by {allowed_hosts[0]}. Set api_key= (or LLM_API_KEY)."
            )
        # Elsewhere the key keeps strangers out, and probes know a machine by many names.
        hosts = (*LOOPBACK, host.strip("[]").lower()) if is_loopback(host) else None
        return cls(api_key, hosts, frozenset(allowed.lower() for allowed in allowed_hosts))

    def knows_host(self, host: str) -> bool:
        """Whether the server may be asked under what a request's Host says."""
        return self.hosts is None or _name(host) in self.hosts or host.lower() in self.allowed_hosts

    def knows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may ask the server under `host`: its own, whether a proxy keeps its name or not."""
        authority = _authority(origin)
        return authority is not None and (authority == host.lower() or authority in self.allowed_hosts)


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
            self._check(scope)
            receive = await self._read(receive)
        except ApiError as error:
            await error.response(scope)(scope, receive, answer)
            return
        await self._app(scope, receive, answer)

    def _check(self, scope: Scope) -> None:
        """Let a request pass, or raise the ApiError that says why not."""
        if scope["path"] in OPEN:
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._guarding.knows_host(host):
            message = (
                "This server isn't known by that Host. `llm serve allowed_hosts=` says by which others it is."
            )
            raise ApiError(403, message, code="host")
        if origin is not None and not self._guarding.knows_origin(origin, host):
            raise ApiError(403, "Pages of other origins may not use this server.", code="origin")
        key = self._guarding.api_key
        if key is not None and not hmac.compare_digest(_key(scope, headers), key.encode()):
            # Basic is what browsers can ask a person for: any name, and the key as password.
            raise ApiError(401, "Wrong or missing API key.", code="invalid_api_key", WWW_Authenticate="Basic")

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


def _check_key(api_key: str | None) -> None:
    if api_key is not None and not (
        api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key != ""
    ):
        raise ConfigError("api_key: it must be printable ASCII, without spaces around it.")


def _check_hosts(allowed_hosts: Sequence[str]) -> None:
    for allowed in allowed_hosts:
        if not _AUTHORITY.fullmatch(allowed):
            raise ConfigError(
                f"allowed_hosts: {allowed!r} is no host. Write it as in chat.example.com, with :8443 after it where the port "
                "isn't the usual one, and without https://."
            )


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _authority(origin: str) -> str | None:
    """The host of an Origin header, with its port where that isn't the usual one; None where it has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _key(scope: Scope, headers: Headers) -> bytes:
    """The key that a request brings, empty where it brings none."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        credentials = _password(credentials)
    elif scheme.lower() != "bearer":
        credentials = headers.get(GOOGLE_KEY) or _key_of_query(scope)
    return credentials.encode("utf-8", "replace")


def _key_of_query(scope: Scope) -> str:
    """What stands after key= in the address, as Google's REST has it; other routes keep keys out of addresses."""
    if GOOGLE_ROUTES not in scope["path"]:
        return ""
    try:
        values = parse_qs(scope["query_string"].decode(), max_num_fields=16)
    except ValueError:
        return ""
    return values.get("key", [""])[0]


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
