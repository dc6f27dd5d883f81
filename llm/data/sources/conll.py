"""CoNLL files: a word and its tag a line, a blank line behind each sentence."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TextIO

from llm.data.documents import Document, LeftOut
from llm.data.documents.bio import tagged
from llm.data.files.inputs import OnBadFile
from llm.data.sources.record_files import RecordFiles, bounded_lines, open_text
from llm.errors import ConfigError, DataError

OR_SKIP = "Leave such sentences out by data.on_bad_file=skip."
# A file without blank lines would be one sentence.
MOST_WORDS = 20_000


@dataclass(frozen=True)
class ConllPiece:
    """All sentences of a file."""

    path: str
    text: int
    label: int
    on_bad_file: OnBadFile

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the sentences in order; lines that begin with -DOCSTART- count as blank."""
        try:
            with closing(open_text(self.path)) as file:
                yield from self._documents(file, left_out)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not UTF-8 ({error}). Convert it.") from error
        except (EOFError, OSError) as error:
            raise DataError(f"{self.path} can't be read to its end: {error}.") from error

    def _documents(self, file: TextIO, left_out: LeftOut) -> Iterator[Document]:
        columns = 0
        for first, lines in _sentences(file):
            id_ = f"{self.path}, line {first}"
            columns = columns or len(_cells(lines[0]))
            try:
                rows = [self._row(number, line, columns) for number, line in enumerate(lines, first)]
                data = tagged(*map(list, zip(*rows, strict=True)))
            except DataError as error:
                if self.on_bad_file == "skip":
                    left_out.add("bad", id_, str(error))
                    continue
                raise DataError(f"{self.path}, the sentence of line {first}: {error} {OR_SKIP}") from error
            yield Document(id_, data)

    def _row(self, number: int, line: str, columns: int) -> tuple[str, str]:
        cells = _cells(line)
        if len(cells) != columns:
            raise DataError(f"line {number} has {len(cells)} columns, and the file's first line {columns}.")
        try:
            return cells[self.text], cells[self.label]
        except IndexError:
            raise ConfigError(
                f"{self.path}:{number}: there are {columns} columns, and data.text={self.text} and "
                f"data.label={self.label} count from 0, or from the last by -1."
            ) from None


def _cells(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _sentences(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The lines of each sentence, and the number of the first one."""
    lines: list[str] = []
    number = 0
    for number, line in enumerate(bounded_lines(file), 1):
        line = line.rstrip("\r\n")
        if line.strip() and not line.startswith("-DOCSTART-"):
            lines.append(line)
        elif lines:
            yield number - len(lines), lines
            lines = []
        if len(lines) > MOST_WORDS:
            raise DataError(
                f"{file.name}:{number}: no blank line ends the sentence, of {len(lines):,} words by now."
            )
    if lines:
        yield number - len(lines) + 1, lines


@dataclass(frozen=True)
class Conll(RecordFiles):
    """Source: tagged sentences of CoNLL files (also .gz), a word a line, columns apart by tabs or else by spaces.

    `text` and `label` are the columns of the word and of its tag, counted from 0, or from the last by -1. A sentence with
    a line of more or fewer columns than the first is a bad record; see `RecordFiles`.
    """

    text: int = 0  # type: ignore[assignment]
    label: int = -1  # type: ignore[assignment]

    kind = "conll"

    @property
    def corpus_name(self) -> str:
        """What its documents are."""
        return "tagged"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text == self.label:
            raise ConfigError(f"data.text={self.text} and data.label={self.label} are one column.")

    def pieces(self, path: str, size: int, limit: int) -> Iterator[ConllPiece]:
        """The whole file."""
        yield ConllPiece(path, self.text, self.label, self.on_bad_file)
