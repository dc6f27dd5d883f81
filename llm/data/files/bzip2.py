"""A bzip2 file read from any of its blocks on, so that several processes can share one; blocks begin at any bit."""

import bz2
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK_MAGIC = 0x314159265359
END_MAGIC = 0x177245385090
MAGIC_BITS = 48
READ_BYTES = 1 << 22


class Mark(NamedTuple):
    """The bit at which a block begins, or the end of a stream."""

    bit: int
    is_block: bool


class Block(NamedTuple):
    """A block's place in the file, in bits, and its text, or why it can't be unpacked."""

    bit: int
    data: bytes
    flaw: str | None = None


def blocks(file: BinaryIO, start: int) -> Iterator[Block]:
    """The blocks that begin at or after byte `start`, in order, in bounded memory."""
    file.seek(start)
    buffer, base, is_last = b"", start, False
    while not is_last:
        more = file.read(READ_BYTES)
        is_last = len(more) < READ_BYTES
        buffer += more
        found = find_marks(buffer)
        if is_last:
            found.append(Mark(8 * len(buffer), False))
        done = 0
        for number, mark in enumerate(found[:-1]):
            done = found[number + 1].bit
            if mark.is_block:
                yield Block(8 * base + mark.bit, *_unpack(buffer, mark.bit, done))
        # A mark may be torn by the end of what was read.
        cut = done // 8 if found else max(0, len(buffer) - MAGIC_BITS // 8)
        buffer, base = buffer[cut:], base + cut


def find_marks(data: bytes) -> list[Mark]:
    """Where blocks and ends of streams begin, in bits."""
    marks = [
        Mark(bit, magic == BLOCK_MAGIC)
        for magic in (BLOCK_MAGIC, END_MAGIC)
        for shift in range(8)
        for bit in _find(data, magic, shift)
    ]
    return sorted(marks)


def _find(data: bytes, magic: int, shift: int) -> Iterator[int]:
    """The bits where `magic` stands `shift` bits into a byte."""
    # The five bytes that the magic fills whole are searched for, its torn ends are compared.
    inner = (magic << (8 - shift)).to_bytes(7, "big")[1:6]
    at = data.find(inner)
    while at >= 0:
        first = 8 * (at - 1) + shift
        if _bits(data, first, first + MAGIC_BITS) == magic:
            yield first
        at = data.find(inner, at + 1)


def _bits(data: bytes, start: int, stop: int) -> int:
    """The bits [start, stop) as a number; -1 where there are fewer."""
    if start < 0 or stop > 8 * len(data):
        return -1
    last = -(-stop // 8)
    whole = int.from_bytes(data[start // 8 : last], "big") >> (8 * last - stop)
    return whole & ((1 << (stop - start)) - 1)


def _unpack(data: bytes, start: int, stop: int) -> tuple[bytes, str | None]:
    """The text of the block in the bits [start, stop), as a stream of its own."""
    n_bits = stop - start
    if n_bits < MAGIC_BITS + 32:
        return b"", "it is cut short"
    block = _bits(data, start, stop)
    crc = (block >> (n_bits - MAGIC_BITS - 32)) & 0xFFFFFFFF
    n_bits += MAGIC_BITS + 32
    stream = ((block << MAGIC_BITS | END_MAGIC) << 32 | crc) << (-n_bits % 8)
    unpacker = bz2.BZ2Decompressor()
    try:
        text = unpacker.decompress(b"BZh9" + stream.to_bytes(-(-n_bits // 8), "big"))
    except OSError as error:
        return b"", str(error)
    return (text, None) if unpacker.eof else (b"", "it is cut short")
