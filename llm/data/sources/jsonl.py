"""JSON lines, a document a line, plain or compressed by gzip."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from llm.data.documents import Document, LeftOut
from llm.data.files.cutting import BLOCK_BYTES
from llm.data.files.inputs import OnBadFile
from llm.data.sources.record_files import LARGEST_LINE, ColumnFiles
from llm.data.sources.records import Fields
from llm.errors import DataError, UserError

OR_SKIP = "Leave such lines out by data.on_bad_file=skip."


@dataclass(frozen=True)
class LinesPiece:
    """The lines of a file that start in its bytes [start, end), which are of the text once unpacked."""

    path: str
    fields: Fields
    on_bad_file: OnBadFile
    start: int = 0
    end: float = float("inf")

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the lines in order."""
        try:
            with closing(_open(self.path)) as file:
                yield from self._documents(file, left_out)
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{self.path} can't be read to its end: {error}. Get the file again.") from error

    def _documents(self, file: BinaryIO, left_out: LeftOut) -> Iterator[Document]:
        for offset, line in self._lines(file):
            try:
                document = self._document(line, offset)
            except UserError as error:
                if self.on_bad_file == "skip":
                    left_out.add("bad", f"{self.path}, byte {offset}", str(error))
                    continue
                where = f"{self.path}:{self._line_number(offset)}"
                raise type(error)(f"{where}: {error} {OR_SKIP}") from error
            yield document

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The lines that aren't blank, with the byte at which each starts."""
        offset = self.start
        if offset > 0:
            # The line that reaches into this piece belongs to the one before.
            file.seek(offset - 1)
            offset += _skip_line(file) - 1
        while offset < self.end and (line := file.readline(LARGEST_LINE)):
            if line.strip():
                yield offset, line
            offset += len(line)
            if _is_cut(line):
                offset += _skip_line(file)

    def _document(self, line: bytes, offset: int) -> Document:
        if _is_cut(line):
            raise DataError(f"this line is longer than {LARGEST_LINE >> 20} MiB.")
        try:
            record: Any = json.loads(line.decode("utf-8-sig" if offset == 0 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"byte {offset + error.start} of the file is not UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"this line is no JSON ({error}).") from error
        if not isinstance(record, dict):
            raise DataError(f"this line is no JSON object but {type(record).__name__}.")
        return self.fields.document(f"{self.path}, byte {offset}", record)

    def _line_number(self, offset: int) -> int:
        """Counted from 1, and only when it is to be shown."""
        lines, left = 1, offset
        with closing(_open(self.path)) as file:
            while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
                lines += block.count(b"\n")
                left -= len(block)
        return lines


def _is_cut(line: bytes) -> bool:
    return len(line) == LARGEST_LINE and not line.endswith(b"\n")


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of a line, of any length; returns how many bytes that were."""
    length = 0
    while part := file.readline(BLOCK_BYTES):
        length += len(part)
        if part.endswith(b"\n"):
            break
    return length


def _open(path: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.endswith(".gz") else open(path, "rb"))


@dataclass(frozen=True)
class JsonLines(ColumnFiles):
    """Source: JSON lines, a record a line (.jsonl, .jsonl.gz); see `ColumnFiles`."""

    kind = "jsonl"

    def pieces(self, path: str, size: int, limit: int) -> Iterator[LinesPiece]:
        """Stretches of lines; a packed file is one piece."""
        if path.endswith(".gz"):
            yield LinesPiece(path, self.fields, self.on_bad_file)
            return
        for start in range(0, size, limit):
            yield LinesPiece(path, self.fields, self.on_bad_file, start, start + limit)


@dataclass(frozen=True)
class PreferenceLines(JsonLines):
    """Source: JSON lines, a preference a line: a prompt (field `text`), a better answer (`label`) and a worse one.

    Each is a text or a list of messages; answers that are whole conversations need no prompt.
    """

    text: str = "prompt"
    label: str | None = "chosen"
    rejected: str | None = "rejected"
    passage: str | None = field(init=False, default=None)

    kind = "preferences"
