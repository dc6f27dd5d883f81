import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.files import cutting
from llm.data.files.cutting import boundary, chunks, piece_bytes, ranges, read_blocks

TEXTS = st.text(st.sampled_from("ab\n\r é€😀\u2028"), max_size=200).map(str.encode)


@settings(deadline=None)
@given(TEXTS, st.integers(8, 40))
def test_chunks_join_to_the_text_and_hold_whole_characters(data: bytes, limit: int) -> None:
    parts = list(chunks(data, limit))
    assert b"".join(parts) == data
    assert all(len(part) <= limit for part in parts)
    for part in parts:
        part.decode()


def test_chunks_end_with_lines_where_there_are_lines() -> None:
    assert list(chunks(b"one\ntwo\nthree\n", 9)) == [b"one\ntwo\n", b"three\n"]


@settings(deadline=None)
@given(TEXTS, st.integers(8, 60))
def test_ranges_and_blocks_cover_a_file_at_boundaries(data: bytes, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "BLOCK_BYTES", 8)
        file = io.BytesIO(data)
        found = list(ranges(file, len(data), limit))
        blocks = [block for start, end in found for block in read_blocks(file, start, end)]
    assert [start for start, _ in found[1:]] == [end for _, end in found[:-1]]
    assert all(end - start <= limit for start, end in found)
    assert b"".join(block for _, block in blocks) == data
    assert all(data[offset : offset + len(block)] == block for offset, block in blocks)
    for _, block in blocks:
        block.decode()


@pytest.mark.parametrize(("at", "expected"), [(5, 4), (4, 4), (3, 3), (0, 0)])
def test_boundary_prefers_the_end_of_a_line(at: int, expected: int) -> None:
    assert boundary(b"abc\ndefgh\n", at) == expected


def test_boundary_never_splits_a_character_and_looks_back_only_so_far() -> None:
    assert boundary("a€b".encode(), 3) == 1
    assert boundary(b"a\n" + b"b" * 50, 40, reach=10) == 40


def test_cutting_gets_on_through_bytes_that_are_no_text() -> None:
    assert list(chunks(b"\x80" * 20, 8)) == [b"\x80" * 8, b"\x80" * 8, b"\x80" * 4]


def test_pieces_are_neither_tiny_nor_huge() -> None:
    assert piece_bytes(10) == 1 << 20
    assert piece_bytes(160 << 20) == 10 << 20
    assert piece_bytes(1 << 40) == 1 << 25
