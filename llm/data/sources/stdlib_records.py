"""What sources of records from Python's standard library share: which modules, and those that are held out."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from llm.data.documents import Document, LeftOut, ReadingPlan, fingerprint
from llm.data.documents.split import HashSplit, PathSplit, check_share
from llm.data.files.inputs import InputFiles
from llm.data.sources.stdlib import HELD_OUT_MODULO, stdlib_files
from llm.data.sources.text import TextFile, usable_files
from llm.errors import DataError

FILES_A_PIECE = 64


@dataclass(frozen=True)
class ModulesPiece:
    """The records of some modules."""

    files: tuple[TextFile, ...]
    records: Callable[[str, str], Iterator[bytes]]

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the files in order; a record has the path of its file."""
        for file in self.files:
            data = Path(file.path).read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise DataError(
                    f"{file.path} has changed since the preparation began: run the same command again."
                )
            for record in self.records(file.id, data.decode("utf-8")):
                yield Document(file.id, record)


@dataclass(frozen=True)
class LibraryRecords:
    """Base of such a source.

    Held out are the records of the files that `StandardLibrary` holds out; a `validation_share` holds out that share of
    the records by content instead.
    """

    validation_share: float | None = None

    corpus_name: ClassVar[str]

    def __post_init__(self) -> None:
        check_share(self.validation_share or 0)

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """The data of a module's documents, by its path in the library and its text."""
        raise NotImplementedError

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Hash the files and plan the work."""
        left_out = LeftOut()
        kept = usable_files(((name, str(path)) for name, path in stdlib_files()), files, "skip", left_out)
        share = self.validation_share
        split = PathSplit(HELD_OUT_MODULO) if share is None else HashSplit(share)
        pieces = [
            ModulesPiece(tuple(kept[first : first + FILES_A_PIECE]), self.records)
            for first in range(0, len(kept), FILES_A_PIECE)
        ]
        contents = (part for file in kept for part in (file.id, file.sha256))
        settings = {"kind": self.corpus_name, "split": split.settings()}
        return ReadingPlan(fingerprint(settings, contents), pieces, split, None, left_out)
