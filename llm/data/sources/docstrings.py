"""Pairs that are always there: functions of Python's standard library and what their docstrings say first."""

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from llm.data.documents import BETWEEN
from llm.data.sources.stdlib_records import LibraryRecords

Function = ast.FunctionDef | ast.AsyncFunctionDef


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
class Docstrings(LibraryRecords):
    """Source: the standard library's functions with a docstring, each a pair of its code and its summary."""

    corpus_name = "docstrings"

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """A pair for each function that has a docstring."""
        for source, summary in summarised_functions(text):
            yield source.encode() + BETWEEN + summary.encode()
