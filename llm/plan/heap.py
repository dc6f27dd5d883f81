"""The heap of a process on a CPU: how far glibc's malloc lets it grow under tensors that come and go."""

from bisect import bisect_left, insort
from typing import NamedTuple

# glibc's malloc/malloc.c: the header of a piece, what sizes are rounded to, and the least piece.
HEADER, STEP, LEAST = 8, 16, 32
# torch's c10/core/impl/alloc_cpu.cpp: where tensors begin, those large enough at a large page.
ALIGNED, LARGE_PAGE = 64, 2 << 20


class Piece(NamedTuple):
    """A place on the heap, in bytes."""

    begin: int
    size: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.begin + self.size


class Heap:
    """Places tensors as train.py has them placed: what is freed is kept, for tensors that fit (`keep_freed_memory`).

    The smallest hole that is large enough is taken, else the heap grows; what is freed joins the holes beside it. A tensor
    that must begin at a large page needs a hole of its size and a page more, and leaves the rest: this is what gaps come
    from, beside holes that no tensor fits. `most` is the farthest that tensors alone let the heap grow, in bytes.

    Args:
        large_pages: whether tensors of 2 MiB and more begin at a large page.
    """

    def __init__(self, large_pages: bool = True) -> None:
        self.large_pages = large_pages
        self.most = 0
        self._largest = 0
        self._end = 0
        self._used: dict[int, Piece] = {}
        self._sizes: list[tuple[int, int]] = []  # of the holes: size and begin, sorted
        self._begins: dict[int, Piece] = {}
        self._ends: dict[int, Piece] = {}

    @property
    def taken(self) -> int:
        """Bytes in all: `most`, and the largest tensor that was ever freed once more.

        What is no tensor lies on the heap as well. Once something small has begun the hole that the largest one left, the
        next one lies behind all others; a heap was seen to grow so within its first steps (benchmarks/plan.md).
        """
        return self.most + self._largest

    def resize(self, key: int, size: int) -> None:
        """Have `size` bytes for the tensor of this key, in place of what it had."""
        self.free(key)
        if size:
            self._used[key] = self._place(size)

    def free(self, key: int) -> None:
        """Take back what a tensor had, if it had any."""
        if key in self._used:
            piece = self._used.pop(key)
            self._largest = max(self._largest, piece.size)
            self._leave(piece)

    def _place(self, size: int) -> Piece:
        aligned = LARGE_PAGE if self.large_pages and size >= LARGE_PAGE else ALIGNED
        size = max(LEAST, -(-(size + HEADER) // STEP) * STEP)
        found = self._take(size + aligned + LEAST)
        # The tensor itself begins behind two headers.
        begin = -(-(found.begin + 2 * HEADER) // aligned) * aligned - 2 * HEADER
        if 0 < begin - found.begin < LEAST:
            begin += aligned
        self._leave(Piece(found.begin, begin - found.begin))
        self._leave(Piece(begin + size, found.end - begin - size))
        return Piece(begin, size)

    def _take(self, size: int) -> Piece:
        """The smallest hole that is large enough, of which the rest stays one; else the heap grows."""
        place = bisect_left(self._sizes, (size, 0))
        if place == len(self._sizes):
            self._end += size
            self.most = max(self.most, self._end)
            return Piece(self._end - size, size)
        hole = self._forget(self._begins[self._sizes[place][1]])
        if hole.size - size < LEAST:
            return hole
        self._leave(Piece(hole.begin + size, hole.size - size))
        return Piece(hole.begin, size)

    def _leave(self, hole: Piece) -> None:
        """Make it a hole, with those beside it; the last one is the heap's end."""
        if not hole.size:
            return
        if hole.begin in self._ends:
            before = self._forget(self._ends[hole.begin])
            hole = Piece(before.begin, before.size + hole.size)
        if hole.end in self._begins:
            hole = Piece(hole.begin, hole.size + self._forget(self._begins[hole.end]).size)
        if hole.end == self._end:
            self._end = hole.begin
            return
        self._begins[hole.begin] = self._ends[hole.end] = hole
        insort(self._sizes, (hole.size, hole.begin))

    def _forget(self, hole: Piece) -> Piece:
        del self._begins[hole.begin], self._ends[hole.end]
        self._sizes.pop(bisect_left(self._sizes, (hole.size, hole.begin)))
        return hole
