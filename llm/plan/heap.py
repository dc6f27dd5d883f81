"""The heap of a process on a CPU: how far glibc's malloc lets it grow under tensors that come and go."""

from bisect import bisect_left, insort
from collections import defaultdict
from statistics import mean
from typing import NamedTuple

# glibc's malloc/malloc.c: the header of a piece, what sizes are rounded to, and the least piece.
HEADER, STEP, LEAST = 8, 16, 32
# The same: the largest piece that a thread keeps apart when it is freed (its tcache), and how many of one size.
APART, OF_A_SIZE = 1040, 7
# The same: a larger piece gets a place of its own, which goes back to the kernel when it is freed. The threshold grows with
# what is freed, up to this.
MAPPED = 32 << 20
# torch's c10/core/impl/alloc_cpu.cpp: where tensors begin, and from which size on those that ask for large pages do.
ALIGNED, PAGE, LARGE = 64, 4096, 2 << 20
# torch's ProcessGroupGloo: so many threads pass its messages, each with a heap of its own, of at most so many bytes
# (HEAP_MAX_SIZE in glibc's malloc/arena.c).
GLOO_THREADS, THREAD_HEAP = 2, 64 << 20
# What torch makes with a tensor that is no tensor: its storage (96), itself (176), its sizes and strides, as they were counted
# between malloc and free in training. What autograd's graph takes finds a place in what was freed before training.
OBJECTS = (96, 176, 16, 24)
# Where a heap begins differs from run to run, and with it what finds a place: some beginnings, of which the mean counts.
BEGINNINGS = (0, 112, 4048, 12432, 19744)


class Piece(NamedTuple):
    """A place on the heap, in bytes; one of its own, which is nowhere on it, begins below zero."""

    begin: int
    size: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.begin + self.size


class Heap:
    """Places tensors as glibc's malloc does, to which torch leaves it.

    The smallest hole that is large enough is taken, else the heap grows; what is freed joins the holes beside it. For a
    tensor that is to begin at a multiple of something malloc wants a hole of its size and as much more, and frees what is
    left on both sides. What is left is small and stays apart, for objects that are no tensors: so a tensor's place is
    too small for the next tensor of the same size, unless one beside it is free too. `most` is the farthest that the
    heap, and what lies beside it, came to at a time, in bytes.

    Args:
        keeps: whether what is freed stays with the process (`keep_freed_memory`).
        large_pages: whether tensors of 2 MiB and more ask for large pages, as train.py's do.
        begin: where it begins.
    """

    def __init__(self, keeps: bool = True, large_pages: bool = True, begin: int = 0) -> None:
        self.keeps, self.large_pages, self.begin = keeps, large_pages, begin
        self.most = 0
        self._mapped = 0
        self._end = self._grown = begin  # where the last piece ends, and the farthest that one ever did
        self._used: dict[int, tuple[Piece, ...]] = {}
        self._apart: defaultdict[int, list[Piece]] = defaultdict(list)
        self._sizes: list[tuple[int, int]] = []  # of the holes: size and begin, sorted
        self._begins: dict[int, Piece] = {}
        self._ends: dict[int, Piece] = {}

    def resize(self, key: int, size: int) -> None:
        """Have `size` bytes for the tensor of this key, in place of what it had."""
        self.free(key)
        if size:
            self._used[key] = (self._place(size), *map(self._object, OBJECTS))
            self.most = max(self.most, self._grown - self.begin + self._mapped)

    def free(self, key: int) -> None:
        """Take back what a tensor had, if it had any."""
        if key not in self._used:
            return
        for piece in self._used.pop(key):
            if piece.begin < 0:
                self._mapped -= piece.size
            else:
                self._give_back(piece)

    def _place(self, size: int) -> Piece:
        aligned = PAGE if self.large_pages and size >= LARGE else ALIGNED
        size = _piece(size)
        wanted = _piece(size + aligned + LEAST)
        found = self._hole(wanted) or self._own(wanted) or self._grow(wanted)
        if found.begin < 0:
            return found
        # The tensor itself begins behind two headers.
        begin = -(-(found.begin + 2 * HEADER) // aligned) * aligned - 2 * HEADER
        if 0 < begin - found.begin < LEAST:
            begin += aligned
        self._give_back(Piece(found.begin, begin - found.begin))
        if found.end - begin - size <= LEAST:
            return Piece(begin, found.end - begin)
        self._give_back(Piece(begin + size, found.end - begin - size))
        return Piece(begin, size)

    def _object(self, size: int) -> Piece:
        """A place for something small: first of what stays apart."""
        size = _piece(size)
        if self._apart[size]:
            return self._apart[size].pop()
        return self._hole(size) or self._grow(size)

    def _hole(self, size: int) -> Piece | None:
        """The smallest hole that is large enough, of which the rest stays one."""
        place = bisect_left(self._sizes, (size, 0))
        if place == len(self._sizes):
            return None
        hole = self._forget(self._begins[self._sizes[place][1]])
        if hole.size - size < LEAST:
            return hole
        self._leave(Piece(hole.begin + size, hole.size - size))
        return Piece(hole.begin, size)

    def _own(self, size: int) -> Piece | None:
        """A place of its own, where there is none left on the heap and it is large enough for one."""
        if self.keeps or size < MAPPED or self._grown - self._end >= size:
            return None
        self._mapped += size
        return Piece(-1, size)

    def _grow(self, size: int) -> Piece:
        self._end += size
        self._grown = max(self._grown, self._end)
        return Piece(self._end - size, size)

    def _give_back(self, piece: Piece) -> None:
        """Free a piece, unless it stays apart."""
        if piece.size <= APART and len(self._apart[piece.size]) < OF_A_SIZE:
            self._apart[piece.size].append(piece)
        else:
            self._leave(piece)

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


class Heaps:
    """Some heaps with the same tensors, each with another beginning, and beside each those of gloo's threads."""

    def __init__(self, keeps: bool = True) -> None:
        self._heaps = [Heap(keeps, begin=begin) for begin in BEGINNINGS]
        self._passed_on = THREAD_HEAP if keeps else MAPPED
        self._largest_copy = 0

    def resize(self, key: int, size: int) -> None:
        """Have `size` bytes for the tensor of this key, in place of what it had."""
        for heap in self._heaps:
            heap.resize(key, size)

    def free(self, key: int) -> None:
        """Take back what a tensor had, if it had any."""
        for heap in self._heaps:
            heap.free(key)

    def gather(self, size: int) -> None:
        """Have one of gloo's threads copy what it gathers: its heap keeps the place, unless that was the kernel's."""
        if size < self._passed_on:
            self._largest_copy = max(self._largest_copy, size)

    @property
    def most(self) -> int:
        """The mean of how far each came, in bytes, with what the threads' came to."""
        return round(mean(heap.most for heap in self._heaps)) + GLOO_THREADS * self._largest_copy


def _piece(size: int) -> int:
    """What malloc takes for `size` bytes."""
    return max(LEAST, -(-(size + HEADER) // STEP) * STEP)
