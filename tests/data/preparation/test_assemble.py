from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.corpus import TokenStream, token_dtype
from llm.data.documents import Document, LeftOut
from llm.data.documents.split import HashSplit
from llm.data.preparation import assemble as module
from llm.data.preparation.assemble import assemble, find_duplicates
from llm.data.preparation.encode import PieceFiles, encode_piece
from llm.tokenizer import ByteSpec

TOKENIZER = ByteSpec().build(())


class Texts:
    """A piece with given texts."""

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        for number, text in enumerate(self.texts):
            yield Document(f"d{number}", text)


def encoded(folder, pieces: list[list[bytes]], share: float = 0.0) -> list[PieceFiles]:
    files = [PieceFiles(folder, number) for number in range(len(pieces))]
    for texts, file in zip(pieces, files, strict=True):
        encode_piece(Texts(texts), HashSplit(share), TOKENIZER, file)
    return files


def texts_in(folder, stream: str) -> list[bytes]:
    tokens = TokenStream(folder, stream, token_dtype(TOKENIZER.vocab_size), 0)
    bounds = [*tokens.documents.tolist(), len(tokens)]
    return [TOKENIZER.decode_bytes(tokens.tokens[a:b].tolist()) for a, b in pairwise(bounds)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([b"a", b"b", b"cc", b"d\n" * 9, b"e"]), max_size=6), min_size=1, max_size=4
    )
)
def test_the_first_of_each_text_stays_in_order(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[list[bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("assemble")
    files = encoded(folder, pieces, share=0.5)
    result = assemble(folder, files, TOKENIZER.vocab_size)
    everything = [text for texts in pieces for text in texts]
    expected = list(dict.fromkeys(everything))
    split = HashSplit(0.5)
    held_out = {text: next(split.parts(Document("", text))).held_out for text in expected}
    assert texts_in(folder, "train") == [text for text in expected if not held_out[text]]
    assert texts_in(folder, "validation") == [text for text in expected if held_out[text]]
    assert result.duplicates == len(everything) - len(expected)
    assert sum(counts.bytes for counts in result.streams.values()) == len(b"".join(expected))
    assert result.id_counts.sum() == sum(counts.tokens for counts in result.streams.values())


def test_duplicates_are_the_same_however_few_are_looked_at_at_once(tmp_path) -> None:
    draw = np.random.default_rng(0).integers(0, 40, (5, 60))
    files = encoded(tmp_path, [[b"text %d" % number for number in row] for row in draw])
    whole = find_duplicates(files)
    assert len(whole) == draw.size - 40
    for at_once in (1, 7, 100):
        assert np.array_equal(find_duplicates(files, at_once), whole)


def test_a_long_copy_is_dropped_with_all_its_chunks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "llm.data.preparation.encode.chunks",
        lambda data: (data[at : at + 10] for at in range(0, len(data), 10)),
    )
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    files = encoded(tmp_path, [[b"x" * 95, b"y" * 45], [b"x" * 95, b"z" * 31]])
    assemble(tmp_path, files, TOKENIZER.vocab_size)
    assert texts_in(tmp_path, "train") == [b"x" * 95, b"y" * 45, b"z" * 31]


def test_a_document_that_goes_on_in_the_next_piece_stays_one(tmp_path) -> None:
    class Rest(Texts):
        def documents(self, left_out: LeftOut) -> Iterator[Document]:
            yield Document("long", b"second half", 10, 21, "ab" * 32)
            yield from super().documents(left_out)

    class Start(Texts):
        def documents(self, left_out: LeftOut) -> Iterator[Document]:
            yield Document("long", b"first half", 0, 21, "ab" * 32)

    files = [PieceFiles(tmp_path, number) for number in range(2)]
    for piece, file in zip([Start([]), Rest([b"next"])], files, strict=True):
        encode_piece(piece, HashSplit(0), TOKENIZER, file)
    result = assemble(tmp_path, files, TOKENIZER.vocab_size)
    assert texts_in(tmp_path, "train") == [b"first halfsecond half", b"next"]
    assert result.streams["train"].documents == 2


def test_a_damaged_piece_is_not_finished(tmp_path) -> None:
    (file,) = encoded(tmp_path, [[b"text"]])
    assert file.finished()
    data = bytearray(file.tokens.read_bytes())
    data[0] ^= 1
    file.tokens.write_bytes(data)
    assert file.finished() is None
    file.record.unlink()
    assert file.finished() is None
