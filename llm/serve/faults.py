"""What a client is told of a body that doesn't fit its schema: the field as it was written there, and what is wrong with it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError

MOST_CHARACTERS = 200  # of a field's name, which is the client's own
LONE_SURROGATE = "the text holds a lone surrogate, which is no valid Unicode"
# In place of pydantic's words, which speak of Python; what stands in braces is of the error's context.
WORDS = {
    "dict_type": "it must be a JSON object",
    "model_type": "it must be a JSON object",
    "model_attributes_type": "it must be a JSON object",
    "json_invalid": "it is no JSON: {error}",
    "string_unicode": LONE_SURROGATE,
    "union_tag_invalid": "its {discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "it needs a {discriminator}",
    "value_error": "{error}",
}


class Fault(NamedTuple):
    """Where a fault is, None for the body as a whole, what it is, and pydantic's name of its kind."""

    where: str | None
    what: str
    kind: str

    @property
    def message(self) -> str:
        """All of it in words."""
        return f"{self.where or 'body'}: {self.what}"


def first_fault(error: RequestValidationError) -> Fault:
    """The first thing that is wrong with a request."""
    first = error.errors()[0]
    kind, (source, *place) = first["type"], first["loc"]
    if kind == "json_invalid":  # the place is a character's
        place = []
    path = _written(place, error.body) if source == "body" else [str(part) for part in place]
    where = ".".join(path)[:MOST_CHARACTERS] or None
    if isinstance(error.body, bytes):  # which nothing has read, for it wasn't said to be JSON
        return Fault(None, "it must be JSON, with the header Content-Type: application/json", kind)
    what = WORDS[kind].format_map(first.get("ctx", {})) if kind in WORDS else first["msg"]
    return Fault(where, what, kind)


def _written(place: Sequence[str | int], body: Any) -> list[str]:
    """The keys and indices of a place that stand in the body, or are missing from it.

    Pydantic puts names between them, of the kinds that a value may be of.
    """
    path: list[str] = []
    for number, part in enumerate(place, start=1):
        try:
            body = body[part]
        except KeyError:
            if number < len(place):
                continue
        except (IndexError, TypeError):
            continue
        path.append(str(part))
    return path
