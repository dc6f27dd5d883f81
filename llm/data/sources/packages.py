"""Labelled texts that are always there: functions and classes of Python's standard library, and the package they are from."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from llm.data.documents import BETWEEN
from llm.data.sources.docstrings import Function
from llm.data.sources.stdlib_records import LibraryRecords


@dataclass(frozen=True)
class Packages(LibraryRecords):
    """Source: each function and class of a module that is in a package, labelled with the package's name.

    `validation_share` of the texts is held out by content: few packages have a file among those that `StandardLibrary`
    holds out.
    """

    validation_share: float | None = 0.1

    corpus_name = "packages"

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """The text of each, and the package."""
        package, _, module = name.partition("/")
        if not module:
            return
        try:
            tree = ast.parse(text)
        except SyntaxError:
            return
        for node in tree.body:
            if isinstance(node, Function | ast.ClassDef) and (source := ast.get_source_segment(text, node)):
                yield source.encode() + BETWEEN + package.encode()
