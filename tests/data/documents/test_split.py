import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.documents import Document
from llm.data.documents.split import HashSplit, PathSplit, TailSplit, choose_split
from llm.errors import ConfigError


def documents(*texts: bytes) -> list[Document]:
    return [Document(f"d{number}", text) for number, text in enumerate(texts)]


def streams(split: HashSplit | TailSplit | PathSplit, read: list[Document]) -> tuple[bytes, bytes]:
    sides = [b"", b""]
    for document in read:
        for part in split.parts(document):
            sides[part.held_out] += part.document.data
    return sides[0], sides[1]


def test_many_documents_are_held_out_by_hash_in_about_the_share() -> None:
    many = documents(*(b"%d" % number for number in range(4000)))
    split = choose_split(many[:40], 0.1)
    assert isinstance(split, HashSplit)
    held_out = [document for document in many if next(split.parts(document)).held_out]
    assert 0.08 < len(held_out) / len(many) < 0.12


def test_something_is_held_out_however_small_the_share() -> None:
    many = documents(*(b"%d" % number for number in range(40)))
    split = choose_split(many, 1e-9)
    assert sum(next(split.parts(document)).held_out for document in many) == 1


def test_copies_fall_on_the_same_side() -> None:
    split = choose_split(documents(*(b"%d" % number for number in range(40))), 0.5)
    for text in (b"%d" % number for number in range(100)):
        first, second = Document("a", text), Document("b", text)
        assert next(split.parts(first)).held_out == next(split.parts(second)).held_out


@settings(deadline=None)
@given(
    st.lists(st.text("ab\né", min_size=1, max_size=60).map(str.encode), min_size=1, max_size=10, unique=True)
)
def test_few_documents_lose_their_tail(texts: list[bytes]) -> None:
    read = documents(*texts)
    whole = b"".join(texts)
    train, held_out = streams(choose_split(read, 0.25), read)
    assert train + held_out == whole
    assert len(held_out) >= int(len(whole) * 0.25)


def test_one_file_is_cut_at_the_end_of_a_line() -> None:
    text = b"".join(b"line %d\n" % number for number in range(1000))
    train, held_out = streams(choose_split(documents(text), 0.1), documents(text))
    assert train.endswith(b"\n")
    assert 0.1 <= len(held_out) / len(text) < 0.11


@settings(deadline=None)
@given(st.text("ab\n", min_size=2, max_size=100).map(str.encode), st.integers(1, 50))
def test_a_document_read_in_parts_is_split_without_loss(text: bytes, size: int) -> None:
    split = choose_split(documents(text), 0.3)
    parts = [
        Document("d0", text[at : at + size], at, len(text), hashlib.sha256(text).hexdigest())
        for at in range(0, len(text), size)
    ]
    train, held_out = streams(split, parts)
    assert train + held_out == text
    assert held_out
    starts = [part for document in parts for part in split.parts(document) if part.starts]
    assert sorted(part.held_out for part in starts) == [False, True] if train else [True]


@pytest.mark.parametrize(("share", "held_out"), [(0.0, [False] * 3), (1.0, [True] * 3)])
def test_all_or_nothing_is_held_out(share: float, held_out: list[bool]) -> None:
    read = documents(b"a", b"b", b"c")
    split = choose_split(read, share)
    assert [next(split.parts(document)).held_out for document in read] == held_out


def test_paths_are_held_out_by_their_hash() -> None:
    split = PathSplit(20)
    names = [f"{number}.py" for number in range(500)]
    expected = [int(hashlib.sha256(name.encode()).hexdigest(), 16) % 20 == 0 for name in names]
    assert [next(split.parts(Document(name, b"x"))).held_out for name in names] == expected
    assert 5 < sum(expected) < 60


def test_no_share_is_refused() -> None:
    from llm.data.sources import TextFiles

    with pytest.raises(ConfigError, match=r"data\.validation_share=1\.5"):
        TextFiles(["x"], validation_share=1.5)
