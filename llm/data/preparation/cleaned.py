"""The clean text of a corpus on disk: JSON lines in gzip, a file a piece, and what its comparisons kept of each."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from llm.data.documents import Document, LeftOut
from llm.data.preparation.numbered import NumberedFiles
from llm.errors import DataError
from llm.files import read_object, sha256


@dataclass(frozen=True)
class CleanFiles(NumberedFiles):
    """The clean text of a piece, `jsonl.gz`, and what is compared of it: `digests.bin`, `<step that compares>.bin`."""

    def finished(self) -> dict[str, Any] | None:
        """The record, if the piece is whole and undamaged."""
        try:
            record = read_object(self.record)
            whole = all(digest == sha256(self.folder / name) for name, digest in record["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return record if whole else None

    def digests(self) -> np.ndarray:
        """The first 64 bits of each document's SHA-256."""
        return np.fromfile(self.path("digests.bin"), "<u8")


@dataclass(frozen=True)
class Marks(Sequence[np.ndarray]):
    """What the comparison `name` kept of each piece: an array (d, width), of lines (l,).

    Each is memory-mapped when it is asked for: all of them mapped together would look like memory that is held.
    """

    files: Sequence[CleanFiles]
    name: str
    dtype: str = "<u8"
    width: int | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: Any) -> Any:
        marks = mapped(self.files[number].path(f"{self.name}.bin"), self.dtype)
        return marks.reshape(-1, self.width) if self.width else marks


def mapped(path: Path, dtype: str) -> np.ndarray:
    """A file as an array, memory-mapped (which an empty file can't be)."""
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)


@dataclass(frozen=True)
class CleanPiece:
    """The clean documents of a piece, but for those whose numbers `left_out` names, counted from `first`.

    Nor are there the lines that are marked in the file `repeated`, where there is one, counted from `first_line`.
    """

    path: Path
    left_out: Path
    first: int
    repeated: Path | None
    first_line: int

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the documents in order."""
        numbers = np.fromfile(self.left_out, "<u8")
        start = int(np.searchsorted(numbers, self.first))
        skip = iter(numbers[start:].tolist())
        following = next(skip, None)
        for number, (id_, text) in enumerate(self._texts(), self.first):
            if number == following:
                following = next(skip, None)
            else:
                yield Document(id_, text.encode())

    def _texts(self) -> Iterator[tuple[str, str]]:
        """The id and text of each document, without repeated lines."""
        if self.repeated is None:
            yield from read_clean(self.path)
            return
        repeated, at = mapped(self.repeated, "?"), self.first_line
        for id_, text in read_clean(self.path):
            lines = text.split("\n")
            gone = repeated[at : at + len(lines)]
            at += len(lines)
            if gone.any():
                text = "\n".join(compress(lines, ~gone)).strip("\n")
            yield id_, text


def read_clean(path: Path) -> Iterator[tuple[str, str]]:
    """The id and text of each document in a file of clean text.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                record = json.loads(line)
                yield record["id"], record["text"]
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is damaged ({error}): delete {path.parent} and prepare the data again."
        ) from error


def documents_at(files: Sequence[CleanFiles], numbers: set[int]) -> dict[int, tuple[str, str]]:
    """The documents of some numbers, counted over all pieces."""
    found, first = {}, 0
    for file in files:
        count = len(file.digests())
        if any(first <= number < first + count for number in numbers):
            for number, document in enumerate(read_clean(file.path("jsonl.gz")), first):
                if number in numbers:
                    found[number] = document
        first += count
    return found
