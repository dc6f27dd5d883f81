"""Parquet files, a document a row; read by pyarrow."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from llm.data.documents import Document, LeftOut, ReadingPlan, fingerprint
from llm.data.documents.split import DEFAULT_SHARE, check_share, first_documents
from llm.data.files.addresses import InputFile, find_inputs, open_address
from llm.data.files.cutting import piece_bytes
from llm.data.files.inputs import InputFiles
from llm.data.sources.records import Fields, needed
from llm.errors import DataError

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ParquetFiles:
    """Source: the rows of Parquet files, a document each; `text`, `label`, `rejected`, `passage`: see `Fields`.

    `paths` are files, patterns or addresses of fsspec. A file that is damaged and a row that holds no such document are
    left out and told in the report.
    """

    paths: str | Sequence[str]
    text: str = "text"
    label: str | None = None
    rejected: str | None = None
    passage: str | None = None
    validation_share: float = DEFAULT_SHARE

    corpus_name = "parquet"

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        needed("data=parquet", "pyarrow")

    @property
    def fields(self) -> Fields:
        """What makes a document of a row."""
        return Fields(self.text, self.label, self.rejected, self.passage)

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Find the files, read their footers, and put row groups together to pieces."""
        inputs = find_inputs(self.paths, files)
        total = sum(file.size or 0 for file in inputs)
        pieces = [piece for file in inputs for piece in _pieces(file, self.fields, piece_bytes(total))]
        split = self.fields.split(first_documents(pieces), self.validation_share)
        settings = {"kind": "parquet", **self.fields.settings(), "split": split.settings()}
        return ReadingPlan(
            fingerprint(settings, (file.identity for file in inputs)), pieces, split, total or None
        )


def _pieces(file: InputFile, fields: Fields, limit: int) -> Iterator["RowGroups"]:
    """The row groups of a file, together up to about `limit` bytes of the columns unpacked; a damaged file whole."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with closing(open_address(file.address)) as opened:
            about = parquet.ParquetFile(opened).metadata
    except (pa.ArrowException, OSError):
        # What is wrong with it is told when it is read.
        yield RowGroups(file.address, fields, (0,))
        return
    names = [about.schema.column(number).path.split(".")[0] for number in range(about.num_columns)]
    wanted = fields.among(list(dict.fromkeys(names)))
    columns = [number for number, name in enumerate(names) if name in wanted]
    waiting: list[int] = []
    size = 0
    for number in range(about.num_row_groups):
        waiting.append(number)
        group = about.row_group(number)
        size += sum(group.column(column).total_uncompressed_size for column in columns)
        if size >= limit or number == about.num_row_groups - 1:
            yield RowGroups(file.address, fields, tuple(waiting))
            waiting, size = [], 0


@dataclass(frozen=True)
class RowGroups:
    """Some row groups of a file."""

    address: str
    fields: Fields
    groups: tuple[int, ...]

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the rows in order."""
        import pyarrow as pa

        where = f"{self.address}, row group {self.groups[0]}"
        try:
            for number, row in enumerate(self._rows()):
                try:
                    document = self.fields.document(f"{where}, row {number}", row)
                except DataError as error:
                    left_out.add("bad", f"{where}, row {number}", str(error))
                    continue
                yield document
        except (pa.ArrowException, OSError) as error:
            left_out.add("bad", where, f"the file is damaged: {error}")

    def _rows(self) -> Iterator[dict[str, Any]]:
        from pyarrow import parquet

        with closing(open_address(self.address)) as opened:
            file = parquet.ParquetFile(opened)
            columns = self.fields.among(file.schema_arrow.names)
            for batch in file.iter_batches(ROWS_AT_ONCE, self.groups, columns):
                yield from batch.to_pylist()
