"""What sources of records share: which fields make a document, text made tidy, and the libraries that a source needs."""

import difflib
import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llm.data.documents import BETWEEN, Document, Split
from llm.data.documents.answers import Answer, asked
from llm.data.documents.bio import tagged
from llm.data.documents.messages import conversation, preference
from llm.data.documents.split import IdSplit, choose_split, split_by_hash
from llm.errors import ConfigError, DataError, missing_package


@dataclass(frozen=True)
class Fields:
    """Which fields of a record make its document, and so of what kind that is.

    Args:
        text: the text, or messages; words, where they are labelled; a question, or what is asked.
        label: what belongs to it: a label or a target, the tags of words, right answers, or a better answer; None for text
            alone.
        rejected: a worse answer; None where the documents are no preferences.
        passage: the passage that a question is asked of; None where the documents are no questions.
    """

    text: str
    label: str | None = None
    rejected: str | None = None
    passage: str | None = None

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [name for name in asdict(self).values() if name is not None]

    def settings(self) -> dict[str, Any]:
        """Those that are there, for a fingerprint."""
        return {key: name for key, name in asdict(self).items() if name is not None}

    def among(self, columns: Sequence[str]) -> list[str]:
        """Those that are columns; a ConfigError where one is needed and missing."""
        for key, name in self.settings().items():
            # Answers that are whole conversations need no prompt.
            if name not in columns and not (key == "text" and self.rejected):
                raise missing_field(name, columns, f"data.{key}")
        return [name for name in self.names if name in columns]

    def read(self, record: Mapping[str, Any]) -> bytes:
        """The bytes of a record's document; raises what `text_of` raises, and what its kind does."""
        if self.passage is not None:
            return question_of(record, self.text, self.passage, self.label or "answers")
        if self.rejected is not None:
            return preference_of(record, self.text, self.label or "chosen", self.rejected)
        return pair_of(record, self.text, self.label)

    def document(self, id_: str, record: Mapping[str, Any]) -> Document:
        """A record's document; all questions of a passage have the passage's id."""
        if self.passage is not None:
            return Document(passage_id(record.get(self.passage)), self.read(record))
        return Document(id_, self.read(record))

    def split(self, first: Sequence[Document], share: float) -> Split:
        """What is held out, by the first documents: text may be cut, and the questions of a passage stay together."""
        if self.passage is not None:
            return by_passage(first, share)
        return (choose_split if self.label is None else split_by_hash)(first, share)


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
    """The bytes of a record's preference, see `llm.data.documents.messages.preference`; raises what that does, and ConfigError."""
    for field, key in ((chosen, "data.label"), (rejected, "data.rejected")):
        if field not in record:
            raise missing_field(field, list(record), key)
    if prompt not in record and not isinstance(record[chosen], list):
        raise missing_field(prompt, list(record))
    return preference(record.get(prompt), record[chosen], record[rejected])


def question_of(record: Mapping[str, Any], question: str, passage: str, answers: str) -> bytes:
    """The bytes of a record's question, see `llm.data.documents.answers.asked`; raises what that does, and ConfigError.

    See `answers_of`.
    """
    for field, key in ((question, "data.text"), (answers, "data.label"), (passage, "data.passage")):
        if field not in record:
            raise missing_field(field, list(record), key)
    given, about = record[answers], record[passage]
    try:
        found = answers_of(given, about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the field {answers!r} (data.label) must hold two lists, text and answer_start, or a list of answers that have "
            f"both, or the text of one answer ({type(error).__name__}: {error})."
        ) from error
    return asked(record[question], about, found)


def answers_of(given: Any, passage: str) -> list[Answer]:
    """The right answers to a question in one of several forms; none where there is nothing.

    They are two lists as the hub's SQuAD has them, {"text": [...], "answer_start": [...]}, or a list of answers of SQuAD's
    files, {"text": ..., "answer_start": ...} each, or a text, which is looked for in the passage: its first place counts.

    Raises:
        DataError: the text is nowhere in the passage.
        KeyError, TypeError, ValueError, AttributeError: it has another form.
    """
    if not given:
        return []
    if isinstance(given, str):
        if (start := passage.find(given)) < 0:
            raise DataError(f"its answer {given!r} is nowhere in the passage.")
        return [Answer(given, start)]
    if isinstance(given, list):
        return [Answer(one["text"], one["answer_start"]) for one in given]
    return [Answer(*one) for one in zip(given["text"], given["answer_start"], strict=True)]


def passage_id(passage: Any) -> str:
    """The same for all questions of a passage, wherever it is read from."""
    return f"passage {hashlib.sha256(str(passage).encode('utf-8', 'replace')).hexdigest()}"


def by_passage(first: Sequence[Document], share: float) -> Split:
    """What is held out of questions: whole passages."""
    return IdSplit(share, min(first, key=IdSplit.hash).id)


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
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            raise missing_package(what, name, "corpora")


def versions(*libraries: str) -> dict[str, str]:
    """The versions of libraries that decide what text comes out."""
    return {name: importlib.metadata.version(name) for name in libraries}
