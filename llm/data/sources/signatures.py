"""Questions that are always there: on the signatures of functions in Python's standard library."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from llm.data.documents.answers import Answer, asked
from llm.data.sources.docstrings import Function
from llm.data.sources.stdlib_records import LibraryRecords

FUNCTIONS_A_PASSAGE = 6
LONGEST_LINE = 200  # characters


def signatures(text: str) -> list[tuple[str, ast.arguments]]:
    """The functions of a module: each by the line `def f(...)`, as `ast.unparse` writes it, and its parameters."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, Function)]
    lines = [(f"def {node.name}({ast.unparse(node.args)})", node.args) for node in found]
    return [(line, arguments) for line, arguments in lines if len(line) <= LONGEST_LINE]


def defaults(arguments: ast.arguments) -> Iterator[tuple[str, str | None]]:
    """Each parameter that may be given by its place, and its default as text; None where it has none.

    Nothing of a function without any default: most have none, and would drown the others.
    """
    if not arguments.defaults:
        return
    by_place = [*arguments.posonlyargs, *arguments.args]
    values = [None] * (len(by_place) - len(arguments.defaults)) + [*arguments.defaults]
    for parameter, value in zip(by_place, values, strict=True):
        if parameter.arg not in ("self", "cls"):
            yield parameter.arg, None if value is None else ast.unparse(value)


@dataclass(frozen=True)
class SignatureQuestions(LibraryRecords):
    """Source: what the default of a parameter is, asked of a few signatures of a module; some have none.

    A passage is `FUNCTIONS_A_PASSAGE` signatures that follow one another in the module, without names that come twice.
    """

    corpus_name = "signatures"

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """A question for each parameter of each signature that has defaults."""
        distinct = {line.partition("(")[0]: (line, arguments) for line, arguments in signatures(text)}
        known = list(distinct.items())
        for first in range(0, len(known), FUNCTIONS_A_PASSAGE):
            some = known[first : first + FUNCTIONS_A_PASSAGE]
            passage = "\n".join(line for _, (line, _) in some)
            start = 0
            for begin, (line, arguments) in some:
                function = begin.removeprefix("def ")
                for parameter, value in defaults(arguments):
                    answers = [] if value is None else [_found(line, parameter, value, start)]
                    yield asked(f"What is the default of {parameter} in {function}?", passage, answers)
                start += len(line) + 1


def _found(line: str, parameter: str, value: str, start: int) -> Answer:
    """Where a default stands behind its parameter in a line that begins at `start`."""
    written = ast.parse(f"{line}: pass").body[0]
    assert isinstance(written, Function)
    by_place = [*written.args.posonlyargs, *written.args.args]
    number = [one.arg for one in by_place].index(parameter) - len(by_place)
    node = written.args.defaults[number]
    # ast counts bytes of the line.
    before = line.encode()[: node.col_offset].decode()
    return Answer(value, start + line.index(value, len(before)))
