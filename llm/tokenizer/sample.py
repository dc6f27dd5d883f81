"""A bounded, deterministic sample of any amount of text, cut into the lines that a trainer reads."""

import heapq
import random
import re
from collections.abc import Iterable, Iterator

from llm.tokenizer.base import utf8

# SentencePiece writes a space as U+2581 and refuses NUL: both are always encoded as bytes, and neither may
# stand in what it learns from.
NEVER_IN_A_PIECE = "\u2581\0"
_CHUNK = 4096
# A line and the newlines after it: no piece can then hold a newline followed by something else.
_LINE = re.compile(rf"[^\n]{{1,{_CHUNK}}}\n{{0,16}}|\n{{1,16}}")
_DROP = re.compile(f"[{NEVER_IN_A_PIECE}]")


def sample_texts(texts: Iterable[str], budget: int) -> list[str]:
    """Chunks of `texts` in their order, of `budget` UTF-8 bytes together at most, a uniform draw.

    Memory is bounded by the budget. Each chunk draws a priority from a generator of its own, and those
    of the lowest stay; hence the result depends on the texts and their order alone.
    """
    draw = random.Random(0).random
    heap: list[tuple[float, int, str]] = []
    size = 0
    for index, chunk in enumerate(_chunks(texts)):
        heapq.heappush(heap, (-draw(), index, chunk))
        size += len(utf8(chunk))
        while size > budget and len(heap) > 1:
            size -= len(utf8(heapq.heappop(heap)[2]))
    return [chunk for _, _, chunk in sorted(heap, key=lambda item: item[1])]


def lines(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of `chunks` with the newlines that follow them, without what no piece may hold."""
    for chunk in chunks:
        yield from _LINE.findall(_DROP.sub("", chunk))


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        start = 0
        while start < len(text):
            # A cut after a newline leaves lines whole.
            cut = text.find("\n", start + _CHUNK, start + 2 * _CHUNK) + 1 or start + 2 * _CHUNK
            yield text[start:cut]
            start = cut
