"""The chat page: one file of the package, and the policy that lets a browser run nothing else."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import Response

PAGE = Path(__file__).with_name("page.html")


@cache
def page() -> tuple[bytes, dict[str, str]]:
    """The HTML and its headers."""
    html = PAGE.read_bytes()
    policy = [
        "default-src 'none'",
        f"script-src {_hash(html, b'script')}",
        f"style-src {_hash(html, b'style')}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return html, {"Content-Security-Policy": "; ".join(policy), "Referrer-Policy": "no-referrer"}


def page_response() -> Response:
    """The page as a browser gets it."""
    html, headers = page()
    return Response(html, media_type="text/html; charset=utf-8", headers=headers)


def _hash(html: bytes, tag: bytes) -> str:
    """The source of the one inline `tag`, as a content security policy names it."""
    (content,) = re.findall(b"<%s>(.*?)</%s>" % (tag, tag), html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
