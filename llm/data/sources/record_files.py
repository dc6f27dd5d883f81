"""What the sources of files that hold many records share: which files, which fields, and what is held out."""

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TextIO, cast

from llm.data.documents import Document, Piece, ReadingPlan, Split, fingerprint
from llm.data.documents.split import DEFAULT_SHARE, check_share, first_documents
from llm.data.files.cutting import piece_bytes
from llm.data.files.inputs import InputFiles, OnBadFile, check_on_bad_file, find_files
from llm.data.sources.records import Fields
from llm.errors import DataError

# Far above any record that is meant, and held in memory a few times over.
LARGEST_LINE = 1 << 27


def open_text(path: str) -> TextIO:
    """A file of UTF-8 text, unpacked where its name ends in .gz, its line ends as they are."""
    if path.endswith(".gz"):
        return cast(TextIO, io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline=""))
    return open(path, encoding="utf-8-sig", newline="")


def bounded_lines(file: TextIO) -> Iterator[str]:
    """The lines of a file.

    Raises:
        DataError: one is longer than `LARGEST_LINE` characters, as what unpacks without end has them.
    """
    while line := file.readline(LARGEST_LINE):
        if len(line) == LARGEST_LINE and not line.endswith("\n"):
            raise DataError(f"{file.name} has a line of more than {LARGEST_LINE >> 20} Mi characters.")
        yield line


@dataclass(frozen=True)
class RecordFiles:
    """Base of such a source.

    The field `text` of each record of the files that the patterns `paths` match is a document. With a field `label`, the
    two are a pair: a source and its target, or a text and its label; a record without one of them is left out, and no
    pair is cut. `validation_share` of the documents is held out. `on_bad_file` says whether a record that is broken
    stops the preparation (`error`) or is counted and left out (`skip`). A document is held in memory whole.
    """

    paths: str | Sequence[str]
    text: str = "text"
    label: str | None = None
    validation_share: float = DEFAULT_SHARE
    on_bad_file: OnBadFile = "error"

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        check_on_bad_file(self.on_bad_file)

    @property
    def fields(self) -> Fields:
        """What makes a document of a record."""
        return Fields(self.text, self.label)

    @property
    def corpus_name(self) -> str:
        """What its documents are."""
        return self.kind if self.label is None else "pairs"

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Hash the files, read the first records, and cut the files into pieces."""
        paths = find_files(self.paths)
        facts = [files.facts(path) for path in paths]
        files.save()
        n_bytes = sum(fact.size for fact in facts)
        limit = piece_bytes(n_bytes)
        pieces = [
            piece
            for path, fact in zip(paths, facts, strict=True)
            for piece in self.pieces(path, fact.size, limit)
        ]
        split = self.split(first_documents(pieces))
        settings = {**self.settings, "split": split.settings()}
        return ReadingPlan(fingerprint(settings, (fact.sha256 for fact in facts)), pieces, split, n_bytes)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which documents its files give."""
        return {"kind": self.kind, **self.fields.settings(), "on_bad_file": self.on_bad_file}

    def split(self, first: Sequence[Document]) -> Split:
        """What is held out, by the first documents."""
        return self.fields.split(first, self.validation_share)

    def pieces(self, path: str, size: int, limit: int) -> Iterator[Piece]:
        """The pieces of a file of `size` bytes, of about `limit` where it can be cut."""
        raise NotImplementedError


@dataclass(frozen=True)
class ColumnFiles(RecordFiles):
    """Base of those whose fields alone decide what a record is: with `rejected` a preference, with `passage` a question.

    See `Fields`.
    """

    rejected: str | None = None
    passage: str | None = None

    @property
    def fields(self) -> Fields:
        """What makes a document of a record."""
        return Fields(self.text, self.label, self.rejected, self.passage)
