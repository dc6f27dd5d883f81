"""Texts in pairs and in chats that are always there: of functions of Python's standard library and their docstrings."""

import ast
import keyword
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from llm.data.documents import BETWEEN
from llm.data.documents.messages import conversation, preference
from llm.data.sources.stdlib_records import LibraryRecords

Function = ast.FunctionDef | ast.AsyncFunctionDef
NAME = re.compile(r"\b[A-Za-z_]\w*\b")


def summarised_functions(text: str) -> Iterator[tuple[str, str]]:
    """Each function of a module without its docstring, and the first paragraph of that docstring as one line."""
    lines = text.split("\n")
    for node, summary in _summarised(text):
        yield _without_docstring(node, lines), summary


def _summarised(text: str) -> Iterator[tuple[Function, str]]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, Function) and len(node.body) > 1 and (docstring := ast.get_docstring(node)):
            summary = " ".join(docstring.split("\n\n")[0].split())
            if summary:
                yield node, summary


def _without_docstring(node: Function, lines: list[str]) -> str:
    said = node.body[0]
    before, after = lines[node.lineno - 1 : said.lineno - 1], lines[said.end_lineno : node.end_lineno]
    return textwrap.dedent("\n".join([*before, *after]))


def corrupted(source: str) -> str:
    """Code in which two names are swapped and every fifth line, but the first, is written twice; the same each time.

    It is the text itself where there is nothing to swap or to repeat.
    """
    names = [name for name in dict.fromkeys(NAME.findall(source)) if not keyword.iskeyword(name)]
    if len(names) > 2:
        one, other = names[1], names[-1]
        swap = {one: other, other: one}
        source = NAME.sub(lambda found: swap.get(found[0], found[0]), source)
    lines = source.split("\n")
    return "\n".join(line for n, line in enumerate(lines) for _ in range(2 if n % 5 == 4 else 1))


@dataclass(frozen=True)
class Docstrings(LibraryRecords):
    """Source: the standard library's functions with a docstring, each a pair of its code and its summary."""

    corpus_name: ClassVar[str] = "docstrings"

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """A pair for each function that has a docstring."""
        for source, summary in summarised_functions(text):
            yield source.encode() + BETWEEN + summary.encode()


@dataclass(frozen=True)
class DocstringChats(LibraryRecords):
    """Source: chats about the standard library's functions, held out as `Docstrings` are."""

    corpus_name: ClassVar[str] = "docstring_chats"

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """A chat for each function that has a docstring."""
        for node, summary in _summarised(text):
            head = f"def {node.name}({ast.unparse(node.args)})"
            names = [
                argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ]
            takes = ", ".join(names) if names else "Nothing."
            said = [
                ("user", f"What does `{head}` do?"),
                ("assistant", summary),
                ("user", f"What arguments does `{node.name}` take?"),
                ("assistant", takes),
            ]
            yield conversation([{"role": role, "content": content} for role, content in said])


@dataclass(frozen=True)
class CodePreferences(LibraryRecords):
    """Source: preferences of the standard library's functions over the same with errors, held out as `Docstrings` are."""

    corpus_name: ClassVar[str] = "code_preferences"

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """A preference for each function that has a docstring."""
        for source, summary in summarised_functions(text):
            head = source.partition("\n")[0]
            worse = corrupted(source)
            if worse != source:
                yield preference(f"Write `{head}` {summary}", source, worse)
