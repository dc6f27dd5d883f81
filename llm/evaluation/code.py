"""A measure of generated Python that needs no judge: the share that `ast.parse` accepts."""

import ast
import warnings
from codeop import PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]
from collections.abc import Sequence

# What the parser raises on text that is no program: NUL and surrogates, nesting beyond its stack.
_REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)


def parse_share(texts: Sequence[str]) -> float:
    """The share of `texts` that `parses` accepts, from 0 to 1; 0 of none."""
    return sum(map(parses, texts)) / len(texts) if texts else 0.0


def parses(text: str) -> bool:
    """Whether `ast.parse` accepts `text`, which may be cut off at its end, and finds a statement in it.

    Text that `ast.parse` takes as a whole counts if it holds a statement: blank text and comments don't. Of
    other text the last line, if no newline ends it, is left out. The rest counts where nothing is wrong with
    it but that it ends too early, in an open bracket, string or block, and where `ast.parse` takes all
    lines before the unfinished statement, at least one statement among them. An error before the cut
    always fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (count := _statements(text)) is not None:
            return count > 0
        lines = [line + "\n" for line in text.split("\n")[:-1]]
        return _unfinished("".join(lines)) and _has_whole_statement(lines)


def _has_whole_statement(lines: Sequence[str]) -> bool:
    """Whether the longest run of first lines that parses holds a statement."""
    for end in range(len(lines), 0, -1):
        if (count := _statements("".join(lines[:end]))) is not None:
            return count > 0
    return False


def _statements(text: str) -> int | None:
    """How many statements stand at the top of `text`; None where `ast.parse` refuses it."""
    try:
        return len(ast.parse(text).body)
    except _REFUSALS:
        return None


def _unfinished(text: str) -> bool:
    """Whether the parser meets no error in `text` before its end."""
    try:
        compile(text, "<sample>", "exec", ast.PyCF_ONLY_AST | PyCF_ALLOW_INCOMPLETE_INPUT)
    except SyntaxError as error:
        return error.msg == "incomplete input"
    except _REFUSALS:
        return False
    return True
