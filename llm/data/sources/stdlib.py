"""The corpus that is always there: Python's own standard library, read from the interpreter that runs."""

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from llm.data.documents import LeftOut, ReadingPlan
from llm.data.documents.split import HashSplit, PathSplit, check_share
from llm.data.files.inputs import InputFiles, OnBadFile, check_on_bad_file
from llm.data.sources.text import plan_text, usable_files

LEFT_OUT = frozenset(
    ["site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__", "pydoc_data", "encodings"]
)
HELD_OUT_MODULO = 20


def stdlib_folder() -> Path:
    """Where the running interpreter keeps its library."""
    return Path(sysconfig.get_path("stdlib"))


def stdlib_files() -> list[tuple[str, Path]]:
    """The corpus as (POSIX path relative to the library, path), sorted; on CPython 3.11.7 these are 476 files."""
    root = stdlib_folder()
    return sorted((path.relative_to(root).as_posix(), path) for path in _python_files(root))


def _python_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith("config-")]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


@dataclass(frozen=True)
class StandardLibrary:
    """Source: the standard library, a document a file.

    Held out is each file whose relative path has a SHA-256 of 0 modulo 20 (5% of the text); a
    `validation_share` holds out that share by content instead.
    """

    validation_share: float | None = None
    on_bad_file: OnBadFile = "skip"
    corpus_name = "stdlib"

    def __post_init__(self) -> None:
        check_share(self.validation_share or 0)
        check_on_bad_file(self.on_bad_file)

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Hash the files and plan the work."""
        left_out = LeftOut()
        found = ((name, str(path)) for name, path in stdlib_files())
        kept = usable_files(found, files, self.on_bad_file, left_out)
        share = self.validation_share
        split = PathSplit(HELD_OUT_MODULO) if share is None else HashSplit(share)
        contents = chain.from_iterable((file.id, file.sha256) for file in kept)
        return plan_text(kept, split, left_out, contents)
