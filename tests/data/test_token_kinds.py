"""The kinds of Python's tokens, as `tokenize` tells them."""

from llm.data.sources import TokenKinds


def test_statements_are_sentences_of_their_tokens():
    first, second, third = TokenKinds.records("a.py", "# why\nx = f('a b', 0.5)\nif x:\n    pass\n")
    words, _, tags = first.partition(b"\xff\xfd")
    assert words.split(b"\xfe") == [b"# why", b" x", b" =", b" f", b" (", b" 'a b'", b" ,", b" 0.5", b" )"]
    assert tags.decode().split("\n") == [
        f"B-{kind}" for kind in ("COMMENT", "NAME", "OP", "NAME", "OP", "STRING", "OP", "NUMBER", "OP")
    ]
    assert [part.partition(b"\xff\xfd")[0] for part in (second, third)] == [b"if\xfe x\xfe :", b"pass"]


def test_text_that_is_no_python_gives_what_stands_before_that():
    assert len(list(TokenKinds.records("a.py", "x = 1\ny = (\n"))) == 1
