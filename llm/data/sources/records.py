"""What sources of records share: the text field, text made tidy, and the libraries that a source needs."""

import difflib
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm.data.bio import tagged
from llm.data.documents import BETWEEN
from llm.data.messages import conversation, preference
from llm.errors import ConfigError, DataError


def missing_field(field: str, fields: Sequence[str], key: str = "data.text") -> ConfigError:
    """The error for a field that a record doesn't have: names those that it has, and the nearest."""
    near = difflib.get_close_matches(field, fields, 1)
    guess = f" Did you mean {key}={near[0]}?" if near else ""
    return ConfigError(
        f"there is no field {field!r} ({key}), only {', '.join(fields) or 'none at all'}.{guess}"
    )


def text_of(record: Mapping[str, Any], field: str, key: str = "data.text") -> bytes:
    """The UTF-8 bytes of a record's text field, none where it is null; a list is one of messages.

    Raises ConfigError where the field is missing and DataError where it holds no text; the caller adds
    where the record stands.
    """
    if field not in record:
        raise missing_field(field, list(record), key)
    value = record[field]
    if value is None:
        return b""
    if isinstance(value, list):
        return conversation(value)
    if not isinstance(value, str):
        raise DataError(f"the field {field!r} ({key}) holds {type(value).__name__}, not text.")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the field {field!r} holds a lone surrogate at character {error.start}, which is no Unicode text."
        ) from error


def pair_of(record: Mapping[str, Any], text: str, label: str | None = None) -> bytes:
    """The bytes of a record's text and, with a field `label`, of what belongs to it; none where one side is empty.

    A label may be a number or a truth value too. Where the text is a list of words, the label is a list of their tags.
    Raises what `text_of` raises.
    """
    if label is not None and isinstance(record.get(text), list):
        return tagged(_texts_of(record, text, "data.text"), _texts_of(record, label, "data.label"))
    source = text_of(record, text)
    if label is None:
        return source
    value = record.get(label)
    spelled = str(value) if isinstance(value, bool | int | float) else value
    target = text_of({**record, label: spelled} if label in record else record, label, "data.label")
    return source + BETWEEN + target if source and target else b""


def preference_of(record: Mapping[str, Any], prompt: str, chosen: str, rejected: str) -> bytes:
    """The bytes of a record's preference, see `llm.data.messages.preference`; raises what that does, and ConfigError."""
    for field, key in ((chosen, "data.label"), (rejected, "data.rejected")):
        if field not in record:
            raise missing_field(field, list(record), key)
    if prompt not in record and not isinstance(record[chosen], list):
        raise missing_field(prompt, list(record))
    return preference(record.get(prompt), record[chosen], record[rejected])


def _texts_of(record: Mapping[str, Any], field: str, key: str) -> list[str]:
    """The texts of a field that holds a list of them."""
    if field not in record:
        raise missing_field(field, list(record), key)
    values = record[field]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"the field {field!r} ({key}) must be a list of texts, as the words are.")
    return [text_of({field: value}, field, key).decode() for value in values]


_TRAILING = re.compile(r"[ \t\r\f\v]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_CONTROLS = {code: None for code in range(32) if chr(code) not in "\n\t"}


def clean_text(text: str) -> bytes:
    """Extracted text in UTF-8, without control characters, trailing space and more than one blank line in a row."""
    text = _TRAILING.sub("", text.replace("\r\n", "\n").translate(_CONTROLS))
    return _BLANK_LINES.sub("\n\n", text).strip().encode("utf-8", "replace")


def needed(what: str, *libraries: str) -> None:
    """Raise ConfigError unless the libraries are installed that `what` needs."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{what} needs {' and '.join(missing)}: pip install -e '.[corpora]'.")


def versions(*libraries: str) -> dict[str, str]:
    """The versions of libraries that decide what text comes out."""
    return {name: importlib.metadata.version(name) for name in libraries}
