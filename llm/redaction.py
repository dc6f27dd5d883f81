"""Secrets in what is to be written or shown: found by their key or by their look, and replaced."""

import re
from typing import Any

SECRET_NAMES = (
    "(?:(?:api|secret|access|private|auth|account)[_-]?keys?|[a-z]*token|secrets?|passwords?|passwd|pwd|passphrase|"
    "credentials?|auth|authorization|signature|sig|cookie)"
)
SECRET = re.compile(rf"(^|[._-]){SECRET_NAMES}$", re.IGNORECASE)
REDACTED = "<redacted>"
# user:password@ or token@ behind a scheme, of whose slashes a path keeps one; a slash may be part of the password
# where what follows the colon is no port.
USER = re.compile(
    r"(?<![a-z\d+.-])([a-z\d+.-]+://|[a-z\d+.-]{2,}:/)(?:[^\s/]+@|[^\s/@:]+:(?!\d+(?:/|$))\S{0,256}@)",
    re.IGNORECASE,
)
QUERY = re.compile(r"(?<=[?&])([^\s=&#?]+)=[^\s&#]+")
# What Hugging Face, GitHub, OpenAI, W&B and AWS give out, and what a header holds.
GIVEN_OUT = re.compile(
    r"\b(hf_\w{20,}|gh[opsur]_\w{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|wandb_v1_\w{20,}|A[KS]IA[A-Z0-9]{16}|"
    r"(?<=Bearer )[\w.~+/=-]{8,})",
    re.ASCII,
)


def redacted(value: Any, key: str = "") -> Any:
    """`value` without the secrets in it: all that stands under a key that names one, and those that a text shows."""
    if isinstance(value, dict):
        # What is under credentials: is secret by whatever name.
        return {n: redacted(item, key if SECRET.search(key) else str(n)) for n, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, key) for item in value]
    if SECRET.search(key) and not _is_harmless(value, key):
        return REDACTED
    return redacted_text(value) if isinstance(value, str) else value


def _is_harmless(value: Any, key: str) -> bool:
    """A switch or nothing; or the id of a token of text, which no secret token is."""
    is_id = isinstance(value, int) and key.lower().endswith("token")
    return value is None or isinstance(value, bool) or is_id


def redacted_text(text: str) -> str:
    """`text` without the user and password of an address, the secrets of its query, and keys of a known look."""
    text = USER.sub(rf"\1{REDACTED}@", text)
    text = QUERY.sub(lambda pair: f"{pair[1]}={REDACTED}" if SECRET.search(pair[1]) else pair[0], text)
    return GIVEN_OUT.sub(REDACTED, text)
