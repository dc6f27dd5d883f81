"""Parquet files, a document a row; read by pyarrow."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from llm.data.addresses import InputFile, find_inputs, open_address
from llm.data.cutting import piece_bytes
from llm.data.documents import Document, Losses, Plan, fingerprint
from llm.data.inputs import InputFiles
from llm.data.sources.records import missing_field, needed, text_of
from llm.data.split import DEFAULT_SHARE, check_share, choose_split, first_documents
from llm.errors import DataError

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ParquetFiles:
    """Source: the column `text` of Parquet files.

    `paths` are files, patterns or addresses of fsspec. A file that is damaged and a row that holds no text are left
    out and told in the report.
    """

    paths: str | Sequence[str]
    text: str = "text"
    validation_share: float = DEFAULT_SHARE

    corpus_name = "parquet"

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        needed("data=parquet", "pyarrow")

    def plan(self, files: InputFiles) -> Plan:
        """Find the files, read their footers, and put row groups together to pieces."""
        inputs = find_inputs(self.paths, files)
        total = sum(file.size or 0 for file in inputs)
        pieces = [piece for file in inputs for piece in _pieces(file, self.text, piece_bytes(total))]
        split = choose_split(first_documents(pieces), self.validation_share)
        settings = {"kind": "parquet", "text": self.text, "split": split.settings()}
        return Plan(fingerprint(settings, (file.identity for file in inputs)), pieces, split, total or None)


def _pieces(file: InputFile, field: str, limit: int) -> Iterator["RowGroups"]:
    """The row groups of a file, together up to about `limit` bytes of the column unpacked; a damaged file whole."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with closing(open_address(file.address)) as opened:
            about = parquet.ParquetFile(opened).metadata
    except (pa.ArrowException, OSError):
        # What is wrong with it is told when it is read.
        yield RowGroups(file.address, field, (0,))
        return
    names = list(dict.fromkeys(about.schema.column(i).path.split(".")[0] for i in range(about.num_columns)))
    if field not in names:
        raise missing_field(field, names)
    column = next(i for i in range(about.num_columns) if about.schema.column(i).path.split(".")[0] == field)
    waiting: list[int] = []
    size = 0
    for number in range(about.num_row_groups):
        waiting.append(number)
        size += about.row_group(number).column(column).total_uncompressed_size
        if size >= limit or number == about.num_row_groups - 1:
            yield RowGroups(file.address, field, tuple(waiting))
            waiting, size = [], 0


@dataclass(frozen=True)
class RowGroups:
    """Some row groups of a file."""

    address: str
    field: str
    groups: tuple[int, ...]

    def documents(self, losses: Losses) -> Iterator[Document]:
        """Read the rows in order."""
        import pyarrow as pa

        where = f"{self.address}, row group {self.groups[0]}"
        try:
            for number, value in enumerate(self._values()):
                try:
                    data = text_of({self.field: value}, self.field)
                except DataError as error:
                    losses.add("bad", f"{where}, row {number}", str(error))
                    continue
                yield Document(f"{where}, row {number}", data)
        except (pa.ArrowException, OSError) as error:
            losses.add("bad", where, f"the file is damaged: {error}")

    def _values(self) -> Iterator[Any]:
        from pyarrow import parquet

        with closing(open_address(self.address)) as opened:
            file = parquet.ParquetFile(opened)
            for batch in file.iter_batches(ROWS_AT_ONCE, self.groups, [self.field]):
                yield from batch.column(0).to_pylist()
