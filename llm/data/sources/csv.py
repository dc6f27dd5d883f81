"""Tables as text: CSV and TSV, a document a row or a word a row, plain or compressed by gzip."""

import csv
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TextIO

from llm.data.documents import Document, LeftOut
from llm.data.documents.bio import tagged
from llm.data.files.inputs import OnBadFile
from llm.data.sources.conll import MOST_WORDS
from llm.data.sources.record_files import ColumnFiles, bounded_lines, open_text
from llm.data.sources.records import Fields, missing_field
from llm.errors import ConfigError, DataError, UserError

Row = dict[str, str]

# The largest cell: far above any text that is meant, and below what a runaway quote would swallow.
LARGEST_CELL = 1 << 28
OR_SKIP = "Leave such rows out by data.on_bad_file=skip."


@dataclass(frozen=True)
class TablePiece:
    """All rows of a file: a row may span lines, so that none can be found from the middle."""

    path: str
    fields: Fields
    on_bad_file: OnBadFile

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the rows in order."""
        csv.field_size_limit(LARGEST_CELL)
        try:
            with closing(open_text(self.path)) as file:
                yield from self._documents(file, left_out)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not UTF-8 ({error}). Convert it.") from error
        except (EOFError, OSError, csv.Error) as error:
            raise DataError(f"{self.path} can't be read to its end: {error}.") from error

    def _documents(self, file: TextIO, left_out: LeftOut) -> Iterator[Document]:
        tabs = self.path.removesuffix(".gz").endswith((".tsv", ".tab"))
        table = csv.DictReader(bounded_lines(file), delimiter="\t" if tabs else ",", strict=True)
        for number, rows in self._groups(table):
            try:
                for row in rows:
                    _check_cells(row, table)
                document = self._document(rows, f"{self.path}, line {number}")
            except UserError as error:
                if self.on_bad_file == "skip":
                    left_out.add("bad", f"{self.path}:{number}", str(error))
                    continue
                raise type(error)(f"{self.path}:{number}: {error} {OR_SKIP}") from error
            yield document

    def _groups(self, table: "csv.DictReader[str]") -> Iterator[tuple[int, list[Row]]]:
        """The rows of each document, and the line of it."""
        for row in table:
            yield table.line_num, [row]

    def _document(self, rows: list[Row], id_: str) -> Document:
        return self.fields.document(id_, rows[0])


def _check_cells(row: Row, table: "csv.DictReader[str]") -> None:
    if None in row or None in row.values():
        columns = len(table.fieldnames or ())
        raise DataError(f"the row has another number of cells than the {columns} columns.")


@dataclass(frozen=True)
class WordsPiece(TablePiece):
    """All sentences of a file whose rows are words; the column `sentence` says which sentence a word is of."""

    sentence: str

    def _groups(self, table: "csv.DictReader[str]") -> Iterator[tuple[int, list[Row]]]:
        first, now, rows = 0, "", list[Row]()
        for row in table:
            if self.sentence not in row:
                raise ConfigError(
                    f"{self.path}: {missing_field(self.sentence, table.fieldnames or (), 'data.sentence')}"
                )
            # Many tables name a sentence at its first word alone.
            name = row[self.sentence] or now
            if name != now and rows:
                yield first, rows
                rows = []
            first, now = first if rows else table.line_num, name
            rows.append(row)
            if len(rows) > MOST_WORDS:
                raise DataError(
                    f"{self.path}:{first}: the sentence {now!r} has more than {MOST_WORDS:,} words."
                )
        if rows:
            yield first, rows

    def _document(self, rows: list[Row], id_: str) -> Document:
        columns = [self.fields.text, str(self.fields.label)]
        for key, column in zip(("data.text", "data.label"), columns, strict=True):
            if column not in rows[0]:
                raise missing_field(column, list(rows[0]), key)
        return Document(id_, tagged(*([row[column] for row in rows] for column in columns)))


@dataclass(frozen=True)
class Tables(ColumnFiles):
    """Source: tables whose first row names the columns, a record a row (.csv, .tsv, also .gz); see `ColumnFiles`.

    With a column `sentence` a row is a word and its tag, and a document the rows of a sentence, which stand together.
    """

    sentence: str | None = None

    kind = "csv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sentence is not None and self.label is None:
            raise ConfigError(
                f"data.sentence={self.sentence}: rows are words then; data.label names their tags."
            )

    @property
    def corpus_name(self) -> str:
        """What its documents are."""
        return super().corpus_name if self.sentence is None else "tagged"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which documents its files give."""
        return super().settings | ({} if self.sentence is None else {"sentence": self.sentence})

    def pieces(self, path: str, size: int, limit: int) -> Iterator[TablePiece]:
        """The whole file, since a quoted cell may hold line ends."""
        if self.sentence is None:
            yield TablePiece(path, self.fields, self.on_bad_file)
        else:
            yield WordsPiece(path, self.fields, self.on_bad_file, self.sentence)
