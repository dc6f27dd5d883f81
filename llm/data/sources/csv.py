"""Tables as text: CSV and TSV, a document a row, plain or compressed by gzip."""

import csv
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TextIO

from llm.data.documents import Document, Losses
from llm.data.files.inputs import OnBadFile
from llm.data.sources.record_files import RecordFiles, bounded_lines, open_text
from llm.data.sources.records import Fields
from llm.errors import DataError, UserError

# The largest cell: far above any text that is meant, and below what a runaway quote would swallow.
LARGEST_CELL = 1 << 28
OR_SKIP = "Leave such rows out by data.on_bad_file=skip."


@dataclass(frozen=True)
class TablePiece:
    """All rows of a file: a row may span lines, so that none can be found from the middle."""

    path: str
    fields: Fields
    on_bad_file: OnBadFile

    def documents(self, losses: Losses) -> Iterator[Document]:
        """Read the rows in order."""
        csv.field_size_limit(LARGEST_CELL)
        try:
            with closing(open_text(self.path)) as file:
                yield from self._documents(file, losses)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not UTF-8 ({error}). Convert it.") from error
        except (EOFError, OSError, csv.Error) as error:
            raise DataError(f"{self.path} can't be read to its end: {error}.") from error

    def _documents(self, file: TextIO, losses: Losses) -> Iterator[Document]:
        tabs = self.path.removesuffix(".gz").endswith((".tsv", ".tab"))
        rows = csv.DictReader(bounded_lines(file), delimiter="\t" if tabs else ",", strict=True)
        for row in rows:
            try:
                if None in row or None in row.values():
                    raise DataError(
                        f"the row has another number of cells than the {len(rows.fieldnames or ())} columns."
                    )
                data = self.fields.read(row)
            except UserError as error:
                if self.on_bad_file == "skip":
                    losses.add("bad", f"{self.path}:{rows.line_num}", str(error))
                    continue
                raise type(error)(f"{self.path}:{rows.line_num}: {error} {OR_SKIP}") from error
            yield Document(f"{self.path}, line {rows.line_num}", data)


@dataclass(frozen=True)
class Tables(RecordFiles):
    """Source: tables whose first row names the columns, a record a row (.csv, .tsv, also .gz); see `RecordFiles`."""

    kind = "csv"

    def pieces(self, path: str, size: int, limit: int) -> Iterator[TablePiece]:
        """The whole file, since a quoted cell may hold line ends."""
        yield TablePiece(path, self.fields, self.on_bad_file)
