"""Words: ids equal SentencePiece's own for any text, whatever is remembered, forgotten or shared."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.sources.stdlib import stdlib_files
from llm.tokenizer import SentencePieceSpec, words
from llm.tokenizer.words import LONGEST_KEPT, PADDING, Cuts, WordCache

FILES = [path.read_text("utf-8") for _, path in stdlib_files()[:60]]
FOREIGN = (
    "«naïve».\n  “Ça va?”—‘oui’…\n東京、大阪。Über_größe.2 \n\tПривет, мир!\n\n\n 日本語のテキスト\r\n" * 30
)
PARTS = st.sampled_from(
    [
        "\u2581",
        "\0",
        " ",
        "  ",
        "\n",
        "\t",
        "é",
        "東京",
        "мир",
        "self",
        "_",
        ".x",
        "=" * 30,
        "a" * 24,
        "<unk>",
        "\ufeff",
    ]
)
TEXT = st.one_of(st.text(), st.lists(PARTS, max_size=30).map("".join))


@pytest.fixture(scope="module")
def bpe():
    return SentencePieceSpec("bpe", 1500, character_coverage=1.0).build([*FILES[:20], FOREIGN])


@pytest.fixture(scope="module")
def unigram():
    return SentencePieceSpec("unigram", 900).build([*FILES[:15], FOREIGN])


def as_array(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def starts_of(cuts: Cuts, text: str) -> list[int]:
    return cuts.starts(as_array(text), np.array([0])).tolist()


def pieces_of(tokenizer) -> list[bytes]:
    return [tokenizer.decode_bytes([id_]) for id_ in range(tokenizer.vocab_size)]


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(TEXT, max_size=5))
def test_ids_are_those_of_the_plain_engine(bpe, texts) -> None:
    assert [ids.tolist() for ids in bpe.encode_batch(texts)] == [bpe.encode_plainly(text) for text in texts]


def test_ids_of_real_text_are_those_of_the_plain_engine(bpe) -> None:
    for ids, text in zip(bpe.encode_batch(FILES), FILES, strict=True):
        assert ids.tolist() == bpe.encode_plainly(text)


def test_no_piece_reaches_over_a_cut(bpe, unigram) -> None:
    for tokenizer in (bpe, unigram):
        pieces = [piece for piece in pieces_of(tokenizer) if len(piece) > 1]
        assert len(pieces) > 500
        cuts = Cuts(pieces)
        assert {tuple(starts_of(cuts, piece.decode())) for piece in pieces} == {(0,)}


def test_cuts_fall_between_characters_and_often(bpe) -> None:
    cuts = Cuts(pieces_of(bpe))
    for text in (*FILES[20:], FOREIGN):
        starts = cuts.starts(as_array(text), np.array([0]))
        assert (as_array(text)[starts] & 0xC0 != 0x80).all()
        assert 2 < len(text.encode()) / len(starts) < 10


def test_cuts_stand_where_no_piece_has_the_two_bytes_and_at_the_bounds() -> None:
    cuts = Cuts([b"ab", b"bc", "é".encode(), b"\n\n"])
    assert starts_of(cuts, "abcab") == [0, 3]
    assert starts_of(cuts, "éé\n\n\n\0\0a") == [0, 2, 4, 7, 8, 9]
    assert cuts.starts(as_array("abab"), np.array([0, 1, 1, 4])).tolist() == [0, 1, 2]
    assert starts_of(cuts, "") == []


def test_pieces_side_by_side_in_the_table_are_not_joined() -> None:
    assert starts_of(Cuts([b"a", b"b", b"c"]), "abc") == [0, 1, 2]


@pytest.mark.parametrize("name", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "bound",
    [{"PLACES_BITS": 1}, {"MAX_IDS": 3}, {"WORDS_AT_ONCE": 3, "BYTES_AT_ONCE": 2}, {"PLACES_BITS": 6}],
)
def test_ids_do_not_depend_on_what_is_remembered(name, bound, request, monkeypatch) -> None:
    tokenizer = request.getfixturevalue(name)
    texts = [*FILES[25:28], FOREIGN, "", "a\0b\0", "x" * LONGEST_KEPT, "x" * (LONGEST_KEPT + 1)]
    expected = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    for key, value in bound.items():
        monkeypatch.setattr(words, key, value)
    small = WordCache(tokenizer._encode_words)
    monkeypatch.setattr(tokenizer, "_words", small)
    for _ in range(2):
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == expected


def test_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(words, "MAX_IDS", 100)
    cache = WordCache(lambda some: [[len(word)] * 7 for word in some])
    text = b"".join(b"%04d" % number for number in range(1000))
    for low in range(0, len(text), 40):
        part = text[low : low + 40] + PADDING
        ids, counts = cache.ids(part, np.arange(0, 40, 4))
        assert ids.tolist() == [4] * 70
        assert counts.tolist() == [7] * 10
        assert len(cache._ids) <= 170


def test_a_word_is_encoded_once_while_it_is_remembered() -> None:
    asked = []

    def encode(some: list[str]) -> list[list[int]]:
        asked.extend(some)
        return [[ord(letter) for letter in word] for word in some]

    cache = WordCache(encode)
    for _ in range(3):
        ids, counts = cache.ids(b"one one \0two" + PADDING, np.array([0, 3, 4, 7, 8, 9]))
        assert bytes(ids.astype(np.uint8)) == b"one one \0two"
        assert counts.tolist() == [3, 1, 3, 1, 1, 3]
    assert asked == ["one", " ", "\0", "two"]


def test_threads_may_share_a_tokenizer(bpe, monkeypatch) -> None:
    monkeypatch.setattr(words, "MAX_IDS", 500)
    monkeypatch.setattr(bpe, "_words", WordCache(bpe._encode_words))
    expected = [bpe.encode_plainly(text) for text in FILES[:24]]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(bpe.encode, FILES[:24] * 2)) == expected * 2
