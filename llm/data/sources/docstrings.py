"""Pairs that are always there: functions of Python's standard library and what their docstrings say first."""

import ast
import hashlib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm.data.documents import BETWEEN, Document, Losses, Plan, fingerprint
from llm.data.inputs import InputFiles
from llm.data.sources.stdlib import HELD_OUT_MODULO, stdlib_files
from llm.data.sources.text import TextFile, usable_files
from llm.data.split import HashSplit, PathSplit, check_share
from llm.errors import DataError

Function = ast.FunctionDef | ast.AsyncFunctionDef
FILES_A_PIECE = 64


@dataclass(frozen=True)
class FunctionsPiece:
    """The functions of some files."""

    files: tuple[TextFile, ...]

    def documents(self, losses: Losses) -> Iterator[Document]:
        """Read the files in order: a pair for each function that has a docstring, by the path of its file."""
        for file in self.files:
            data = Path(file.path).read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise DataError(
                    f"{file.path} has changed since the preparation began: run the same command again."
                )
            for source, summary in summarised_functions(data.decode("utf-8")):
                yield Document(file.id, source.encode() + BETWEEN + summary.encode())


def summarised_functions(text: str) -> Iterator[tuple[str, str]]:
    """Each function of a module without its docstring, and the first paragraph of that docstring as one line."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, Function) and len(node.body) > 1 and (docstring := ast.get_docstring(node)):
            summary = " ".join(docstring.split("\n\n")[0].split())
            if summary:
                yield _without_docstring(node, lines), summary


def _without_docstring(node: Function, lines: list[str]) -> str:
    said = node.body[0]
    before, after = lines[node.lineno - 1 : said.lineno - 1], lines[said.end_lineno : node.end_lineno]
    return textwrap.dedent("\n".join([*before, *after]))


@dataclass(frozen=True)
class Docstrings:
    """Source: the standard library's functions with a docstring, each a pair of its code and its summary.

    Held out are the functions of the files that `StandardLibrary` holds out; a `validation_share` holds out that share
    of the pairs by content instead.
    """

    validation_share: float | None = None
    corpus_name = "docstrings"

    def __post_init__(self) -> None:
        check_share(self.validation_share or 0)

    def plan(self, files: InputFiles) -> Plan:
        """Hash the files and plan the work."""
        losses = Losses()
        kept = usable_files(((name, str(path)) for name, path in stdlib_files()), files, "skip", losses)
        share = self.validation_share
        split = PathSplit(HELD_OUT_MODULO) if share is None else HashSplit(share)
        pieces = [
            FunctionsPiece(tuple(kept[first : first + FILES_A_PIECE]))
            for first in range(0, len(kept), FILES_A_PIECE)
        ]
        contents = (part for file in kept for part in (file.id, file.sha256))
        return Plan(
            fingerprint({"kind": "docstrings", "split": split.settings()}, contents),
            pieces,
            split,
            None,
            losses,
        )
