"""Records with exact ground truth in Python's standard library: tokens' kinds, defaults in signatures, packages."""

import ast
import tokenize

import pytest

from llm.data.documents.answers import Question, stretch, units
from llm.data.sources import Packages, SignatureQuestions, TokenKinds
from llm.data.sources.stdlib import stdlib_folder

MODULE = "# why\nx = f('a b', 0.5)\nif x:\n    pass\n"


def parts(record):
    words, _, kept = record.partition(b"\xff\xfd")
    return [word.decode() for word in words.split(b"\xfe")], kept


def test_statements_are_sentences_of_their_tokens():
    first, second, third = map(parts, TokenKinds.records("a.py", MODULE))
    assert first[0] == ["# why", " x", " =", " f", " (", " 'a b'", " ,", " 0.5", " )"]
    kinds = ("COMMENT", "NAME", "OP", "NAME", "OP", "STRING", "OP", "NUMBER", "OP")
    assert first[1].decode().split("\n") == [f"B-{kind}" for kind in kinds]
    assert [words for words, _ in (second, third)] == [["if", " x", " :"], ["pass"]]


def test_all_tokens_of_a_module_are_there():
    path = stdlib_folder() / "heapq.py"
    words = [
        word.strip()
        for record in TokenKinds.records("heapq.py", path.read_text())
        for word in parts(record)[0]
    ]
    with path.open("rb") as file:
        theirs = [token.string for token in tokenize.tokenize(file.readline)][1:]
    assert words == [token for token in theirs if token.strip()]


def test_text_that_is_no_python_gives_what_stands_before_that():
    assert len(list(TokenKinds.records("a.py", "x = 1\ny = (\n"))) == 1
    assert list(SignatureQuestions.records("a.py", "def (")) == []
    assert list(Packages.records("a/b.py", "def (")) == []


SIGNATURES = "def f(a, b=None, *, c=1): pass\nclass C:\n    def é(self, x='é', y='x'): pass\ndef g(z): pass\n"


def test_questions_are_on_defaults_that_may_be_missing():
    found = {}
    for record in SignatureQuestions.records("a.py", SIGNATURES):
        words, kept = parts(record)
        question = Question.of(kept)
        told = stretch(question.passage, units(question.passage), question.first, question.last)
        assert [told] == (question.answers or [told])
        found[words[0]] = question.answers
    assert found == {
        "What is the default of a in f?": [],
        "What is the default of b in f?": ["None"],
        "What is the default of x in é?": ["'é'"],
        "What is the default of y in é?": ["'x'"],
    }


@pytest.mark.parametrize("name", ["textwrap.py", "tempfile.py", "heapq.py"])
def test_answers_are_what_python_says(name):
    text = (stdlib_folder() / name).read_text()
    written = {
        ast.unparse(value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for value in node.args.defaults
    }
    questions = [Question.of(parts(record)[1]) for record in SignatureQuestions.records(name, text)]
    assert {answer for question in questions for answer in question.answers} <= written
    assert any(question.answers for question in questions)


def test_functions_and_classes_have_the_package_that_they_are_from():
    text = "import os\ndef f():\n    return 1\nclass C:\n    x = 1\n"
    assert list(Packages.records("email/mime/a.py", text)) == [
        b"def f():\n    return 1\xffemail",
        b"class C:\n    x = 1\xffemail",
    ]
    assert list(Packages.records("os.py", text)) == []
