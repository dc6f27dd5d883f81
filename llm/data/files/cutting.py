"""Where UTF-8 text may be cut: at the end of a line, or else between two characters."""

from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18
MIN_PIECE_BYTES = 1 << 20
MAX_PIECE_BYTES = 1 << 25
PIECES_WANTED = 16


def piece_bytes(total: int) -> int:
    """How large the pieces of `total` bytes should be: enough of them to share out, none too large to lose."""
    return min(max(total // PIECES_WANTED, MIN_PIECE_BYTES), MAX_PIECE_BYTES)


def boundary(data: bytes, at: int, reach: int | None = None) -> int:
    """The last line end at or before byte `at` (0 excluded), or else the last start of a character there.

    A line end farther back than `reach` bytes is passed over.
    """
    line_end = data.rfind(b"\n", 0 if reach is None else max(0, at - reach), at) + 1
    if line_end > 0:
        return line_end
    while 0 < at < len(data) and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def last_boundary(data: bytes) -> int:
    """Where to cut `data` (8 bytes or more), which goes on: after its last line, or else before its last character.

    That one may be torn. Never 0, so that whoever cuts gets on, be it through bytes that are no text.
    """
    line_end = data.rfind(b"\n") + 1
    if line_end > 0:
        return line_end
    at = len(data) - 1
    while at > 0 and data[at] & 0xC0 == 0x80:
        at -= 1
    return at or len(data)


def chunks(data: bytes, limit: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Cut text into stretches of at most `limit` bytes that join to it again."""
    start = 0
    while len(data) - start > limit:
        end = start + last_boundary(data[start : start + limit])
        yield data[start:end]
        start = end
    yield data[start:]


def read_blocks(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The bytes [start, end) of a file as (offset, block), cut at boundaries; `end` must be one itself."""
    while start < end:
        file.seek(start)
        block = file.read(min(BLOCK_BYTES, end - start))
        if not block:
            return
        if start + len(block) < end:
            block = block[: last_boundary(block)]
        yield start, block
        start += len(block)


def ranges(file: BinaryIO, size: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cut a file of `size` bytes into ranges of about `limit` bytes at boundaries, reading only near the cuts."""
    start = 0
    while size - start > limit:
        near = start + limit - min(limit, BLOCK_BYTES)
        file.seek(near)
        end = near + last_boundary(file.read(start + limit - near))
        yield start, end
        start = end
    yield start, size
