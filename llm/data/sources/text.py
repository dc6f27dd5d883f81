"""Text files, a document a file, of any size and number."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm.data.documents import Document, LeftOut, Piece, ReadingPlan, Split, fingerprint
from llm.data.documents.split import DEFAULT_SHARE, FEW_DOCUMENTS, check_share, choose_split
from llm.data.files.cutting import piece_bytes, ranges, read_blocks
from llm.data.files.inputs import FileFacts, InputFiles, OnBadFile, check_on_bad_file, find_files
from llm.errors import DataError


class TextFile(NamedTuple):
    """A file to read: the id of its document, its path, its hex SHA-256 and its size in bytes."""

    id: str
    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class WholeFiles:
    """A piece of files that are read whole."""

    files: tuple[TextFile, ...]

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the files in order."""
        for file in self.files:
            digest = hashlib.sha256()
            for document in _read(file, 0, file.size):
                digest.update(document.data)
                yield document
            if digest.hexdigest() != file.sha256:
                raise _changed(file)


@dataclass(frozen=True)
class FileRange:
    """A piece of one large file: its bytes [start, end)."""

    file: TextFile
    start: int
    end: int

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the range in blocks, each a part of the one document."""
        yield from _read(self.file, self.start, self.end)


def _read(file: TextFile, start: int, end: int) -> Iterator[Document]:
    try:
        with open(file.path, "rb") as opened:
            if os.fstat(opened.fileno()).st_size != file.size:
                raise _changed(file)
            for offset, block in read_blocks(opened, start, end):
                yield Document(file.id, block, offset, file.size, file.sha256)
    except OSError as error:
        raise DataError(f"{file.path} can't be read any more: {error.strerror}.") from error


def _changed(file: TextFile) -> DataError:
    return DataError(f"{file.path} has changed since the preparation began: run the same command again.")


@dataclass(frozen=True)
class TextFiles:
    """Source: the files that the patterns `paths` match, recursive by `**`.

    `validation_share` of the text is held out. `on_bad_file` says whether a binary or non-UTF-8 file stops
    the preparation (`error`) or is counted and left out (`skip`).
    """

    paths: str | Sequence[str]
    validation_share: float = DEFAULT_SHARE
    on_bad_file: OnBadFile = "error"
    corpus_name = "text"

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        check_on_bad_file(self.on_bad_file)

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Hash the files, drop empty, bad and duplicate ones, and cut the rest into pieces."""
        left_out = LeftOut()
        found = ((path, path) for path in find_files(self.paths))
        kept = usable_files(found, files, self.on_bad_file, left_out)
        first = [Document(file.id, b"", 0, file.size, file.sha256) for file in kept[:FEW_DOCUMENTS]]
        split = choose_split(first, self.validation_share)
        return plan_text(kept, split, left_out, (file.sha256 for file in kept))


def usable_files(
    found: Iterable[tuple[str, str]], files: InputFiles, on_bad_file: OnBadFile, left_out: LeftOut
) -> list[TextFile]:
    """The (id, path) pairs that hold text not seen before; the others are told to `left_out`.

    Raises DataError for a bad file where `on_bad_file` is `error`, and where nothing is left.
    """
    kept: dict[str, TextFile] = {}
    for id_, path in found:
        facts = files.facts(path)
        if facts.flaw and on_bad_file == "error":
            raise DataError(
                f"{path}: {facts.flaw}. Convert or remove it, or leave such files out by data.on_bad_file=skip."
            )
        reason = _reason_to_skip(facts, kept)
        if reason:
            left_out.add(reason, path, facts.flaw or "")
        else:
            kept[facts.sha256] = TextFile(id_, path, facts.sha256, facts.size)
    files.save()
    if not kept:
        listing = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.counts.items()))
        raise DataError(
            f"None of {left_out.counts.total()} files has text ({listing}), the last being {path}: check data.paths."
        )
    return list(kept.values())


def _reason_to_skip(facts: FileFacts, kept: dict[str, TextFile]) -> str | None:
    if facts.flaw:
        return "bad"
    if facts.size == 0:
        return "empty"
    return "duplicate" if facts.sha256 in kept else None


def plan_text(
    files: Sequence[TextFile], split: Split, left_out: LeftOut, contents: Iterator[str]
) -> ReadingPlan:
    """The plan for text files whose order and split are known; `contents` are what the fingerprint is made of."""
    n_bytes = sum(file.size for file in files)
    pieces = tuple(_pieces(files, piece_bytes(n_bytes)))
    settings = {"kind": "text", "split": split.settings()}
    return ReadingPlan(fingerprint(settings, contents), pieces, split, n_bytes, left_out)


def _pieces(files: Sequence[TextFile], limit: int) -> Iterator[Piece]:
    """Whole files together up to `limit` bytes, larger files cut."""
    waiting: list[TextFile] = []
    room = limit
    for file in files:
        if waiting and file.size > room:
            yield WholeFiles(tuple(waiting))
            waiting, room = [], limit
        if file.size <= limit:
            waiting.append(file)
            room -= file.size
            continue
        with open(file.path, "rb") as opened:
            for start, end in ranges(opened, file.size, limit):
                yield FileRange(file, start, end)
    if waiting:
        yield WholeFiles(tuple(waiting))
