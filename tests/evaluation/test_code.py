"""The share of samples that parse: strict before the cut, lenient only about what the cut left unfinished."""

import warnings
from pathlib import Path

import pytest

from llm.evaluation import parse_share, parses

WHOLE = [
    "x = 1",
    "x = 1\n",
    "def f():\n    return 1\n",
    "'docstring'",
    "@a\nclass B: pass",
    "x = '\\d'\n",
    "1 is 1\n",
]
CUT = [
    "import a\nx = (1,\n  2,\n",
    "import a\nx = (1,\n  2, foo",
    "def f():\n    return 1\n\n\ndef g(x,",
    "class A:\n    def f(self):\n        return 1\n    def g(self,\n          b",
    "x = 1\n'''a docstring that goes on\nand on",
    "x = 1\nif x:\n    y = 2\n    retu(",
    "x = 1\ntry:\n    y\n",
    "x = 1\nfor y in ra!",
    "x = 1\ny = 'abc",
]
WRONG = [
    "", " \n\n", "# only a comment\n", "x = = 1\n", "x = = 1\ny = 2\nz", "foo bar\nx = 1\n", "def f(:\n    pass\n",
    "def f():\nreturn 1\n", "  x = 1\n", "x = 1\n  y = 2\nz = 3\n", "x = )\n", "'''only an open docstring\nx = 1\n",
    "def f():\n", "x = (", "half", "x = 1\nprint 2\ny = (", "a\0b = 1\n", "x = 1\0\n", "try:\n    x\ny = 1\n", "x = '\ud800'",
    "return x y\n", "(" * 10_000, "-" * 100_000 + "1",
]  # fmt: skip
WRONG.remove("half")


@pytest.mark.parametrize("text", WHOLE, ids=ascii)
def test_whole_programs_parse(text):
    assert parses(text)


@pytest.mark.parametrize("text", CUT, ids=ascii)
def test_a_cut_is_forgiven(text):
    assert parses(text)


@pytest.mark.parametrize("text", WRONG, ids=lambda text: ascii(text[:40]))
def test_an_error_before_the_cut_or_no_statement_is_not(text):
    assert not parses(text)


def test_every_cut_of_a_real_module_parses_once_it_holds_a_statement():
    source = Path(warnings.__file__).read_text("utf-8")
    assert [cut for cut in range(200, len(source), 997) if not parses(source[:cut])] == []


def test_real_prose_and_shuffled_code_do_not_parse():
    lines = Path(warnings.__file__).read_text("utf-8").splitlines(keepends=True)
    assert not parses("".join(lines[::-1]))
    assert not parses("It was a dark night.\nThe rain fell.\n")


def test_no_warning_is_shown(recwarn):
    assert parse_share(["x = '\\d'\n1 is 1\n", "x = 1; '\\d'; f("]) == 0.5
    assert not recwarn


def test_the_share():
    assert parse_share([]) == 0
    assert parse_share(["x = 1\n", "x = = 1\n", "y = 2\nz = (", ""]) == 0.5
