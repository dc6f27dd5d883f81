"""The text field of a record, wherever the record comes from."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from llm.errors import ConfigError, DataError


def missing_field(field: str, fields: Sequence[str]) -> ConfigError:
    """The error for a field that a record doesn't have: names those that it has, and the nearest."""
    near = difflib.get_close_matches(field, fields, 1)
    guess = f" Did you mean data.text={near[0]}?" if near else ""
    return ConfigError(
        f"there is no field {field!r} (data.text), only {', '.join(fields) or 'none at all'}.{guess}"
    )


def text_of(record: Mapping[str, Any], field: str) -> bytes:
    """The UTF-8 bytes of a record's text field, none where it is null.

    Raises ConfigError where the field is missing and DataError where it holds no text; the caller adds
    where the record stands.
    """
    if field not in record:
        raise missing_field(field, list(record))
    value = record[field]
    if value is None:
        return b""
    if not isinstance(value, str):
        raise DataError(f"the field {field!r} (data.text) holds {type(value).__name__}, not text.")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the field {field!r} holds a lone surrogate at character {error.start}, which is no Unicode text."
        ) from error
