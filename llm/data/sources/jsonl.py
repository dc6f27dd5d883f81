"""JSON lines, a document a line, plain or compressed by gzip."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, cast

from llm.data.cutting import BLOCK_BYTES, piece_bytes
from llm.data.documents import Document, Losses, Plan, fingerprint
from llm.data.inputs import InputFiles, OnBadFile, check_on_bad_file, find_files
from llm.data.sources.records import pair_of
from llm.data.split import DEFAULT_SHARE, check_share, choose_split, first_documents, split_by_hash
from llm.errors import DataError, UserError

OR_SKIP = "Leave such lines out by data.on_bad_file=skip."


@dataclass(frozen=True)
class LinesPiece:
    """The lines of a file that start in its bytes [start, end), which are of the text once unpacked."""

    path: str
    fields: tuple[str, ...]
    on_bad_file: OnBadFile
    start: int = 0
    end: float = float("inf")

    def documents(self, losses: Losses) -> Iterator[Document]:
        """Read the lines in order."""
        try:
            with closing(_open(self.path)) as file:
                yield from self._documents(file, losses)
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{self.path} can't be read to its end: {error}. Get the file again.") from error

    def _documents(self, file: BinaryIO, losses: Losses) -> Iterator[Document]:
        for offset, line in self._lines(file):
            try:
                data = self._text(line, offset)
            except UserError as error:
                if self.on_bad_file == "skip":
                    losses.add("bad", f"{self.path}, byte {offset}", str(error))
                    continue
                where = f"{self.path}:{self._line_number(offset)}"
                raise type(error)(f"{where}: {error} {OR_SKIP}") from error
            yield Document(f"{self.path}, byte {offset}", data)

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The lines that aren't blank, with the byte at which each starts."""
        offset = self.start
        if offset > 0:
            # The line that reaches into this piece belongs to the one before.
            file.seek(offset - 1)
            offset += len(file.readline()) - 1
        while offset < self.end and (line := file.readline()):
            if line.strip():
                yield offset, line
            offset += len(line)

    def _text(self, line: bytes, offset: int) -> bytes:
        try:
            record = json.loads(line.decode("utf-8-sig" if offset == 0 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"byte {offset + error.start} of the file is not UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"this line is no JSON ({error}).") from error
        if not isinstance(record, dict):
            raise DataError(f"this line is no JSON object but {type(record).__name__}.")
        return pair_of(record, *self.fields)

    def _line_number(self, offset: int) -> int:
        """Counted from 1, and only when it is to be shown."""
        lines, left = 1, offset
        with closing(_open(self.path)) as file:
            while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
                lines += block.count(b"\n")
                left -= len(block)
        return lines


def _open(path: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.endswith(".gz") else open(path, "rb"))


@dataclass(frozen=True)
class JsonLines:
    """Source: the field `text` of each line of the files that the patterns `paths` match (.jsonl, .jsonl.gz).

    With a field `label`, the two are a pair: a source and its target, or a text and its label; a line without one of
    them is left out, and no pair is cut. `validation_share` of the documents is held out. `on_bad_file` says whether a
    line that is broken stops the preparation (`error`) or is counted and left out (`skip`). A document is held in memory
    whole.
    """

    paths: str | Sequence[str]
    text: str = "text"
    label: str | None = None
    validation_share: float = DEFAULT_SHARE
    on_bad_file: OnBadFile = "error"

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        check_on_bad_file(self.on_bad_file)

    @property
    def corpus_name(self) -> str:
        """What its documents are."""
        return "jsonl" if self.label is None else "pairs"

    def plan(self, files: InputFiles) -> Plan:
        """Hash the files, read the first lines, and cut the files into pieces."""
        paths = find_files(self.paths)
        facts = [files.facts(path) for path in paths]
        files.save()
        n_bytes = sum(fact.size for fact in facts)
        limit = piece_bytes(n_bytes)
        pieces = [
            piece
            for path, fact in zip(paths, facts, strict=True)
            for piece in self._pieces(path, fact.size, limit)
        ]
        choose = choose_split if self.label is None else split_by_hash
        split = choose(first_documents(pieces), self.validation_share)
        settings = {
            "kind": "jsonl",
            "text": self.text,
            "on_bad_file": self.on_bad_file,
            "split": split.settings(),
        }
        if self.label is not None:
            settings["label"] = self.label
        return Plan(fingerprint(settings, (fact.sha256 for fact in facts)), pieces, split, n_bytes)

    def _pieces(self, path: str, size: int, limit: int) -> Iterator[LinesPiece]:
        fields = (self.text,) if self.label is None else (self.text, self.label)
        if path.endswith(".gz"):
            yield LinesPiece(path, fields, self.on_bad_file)
            return
        for start in range(0, size, limit):
            yield LinesPiece(path, fields, self.on_bad_file, start, start + limit)
