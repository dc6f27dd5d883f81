"""The chat page: one file of the package, and the policy that lets a browser run nothing else."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fastapi import Response

from llm.errors import ConfigError

PAGE = Path(__file__).with_name("page.html")
NOBODY = "'none'"


# An origin alone: a path, a wildcard or a second directive would let in more than was meant.
_ORIGIN = re.compile(r"https?://[a-z0-9_-]+(\.[a-z0-9_-]+)*(:\d+)?", re.IGNORECASE)


def check_frame_ancestors(origins: Sequence[str]) -> None:
    """Raises a ConfigError where one of `origins` is none that may stand in a policy."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"frame_ancestors: {origin!r} is no site. Write it as in https://huggingface.co, with nothing after it."
            )


@cache
def page(frame_ancestors: tuple[str, ...] = ()) -> tuple[bytes, dict[str, str]]:
    """The HTML and its headers, which let `frame_ancestors` alone show it in a frame."""
    html = PAGE.read_bytes()
    policy = [
        "default-src 'none'",
        f"script-src {_hash(html, b'script')}",
        f"style-src {_hash(html, b'style')}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        f"frame-ancestors {' '.join(frame_ancestors) or NOBODY}",
    ]
    return html, {"Content-Security-Policy": "; ".join(policy), "Referrer-Policy": "no-referrer"}


def page_response(frame_ancestors: tuple[str, ...] = ()) -> Response:
    """The page as a browser gets it; the origins `frame_ancestors` may show it in a frame."""
    html, headers = page(frame_ancestors)
    return Response(html, media_type="text/html; charset=utf-8", headers=headers)


def _hash(html: bytes, tag: bytes) -> str:
    """The source of the one inline `tag`, as a content security policy names it."""
    (content,) = re.findall(b"<%s>(.*?)</%s>" % (tag, tag), html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
