"""The heap of a process on a CPU: how far glibc's malloc lets it grow under tensors that come and go."""

from bisect import bisect_left, insort
from typing import NamedTuple

from llm.malloc import GIVEN_BACK

# glibc's malloc/malloc.c: the header of a piece, what sizes are rounded to, and the least piece.
HEADER, STEP, LEAST = 8, 16, 32
# torch's c10/core/impl/alloc_cpu.cpp: where tensors begin, and from which size on those that ask for large pages do.
ALIGNED, PAGE, LARGE = 64, 4096, 2 << 20
# torch's ProcessGroupGloo: so many threads pass its messages, each with a heap of its own, of at most so many bytes
# (HEAP_MAX_SIZE in glibc's malloc/arena.c).
GLOO_THREADS, THREAD_HEAP = 2, 64 << 20


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
    left on both sides. Small objects have holes of their own, and no cache keeps a hole for them (`llm/malloc.py`).

    Args:
        keeps: whether what is freed stays with the process (`tune_malloc`).
        large_pages: whether tensors of 2 MiB and more ask for large pages, as train.py's do.
    """

    def __init__(self, keeps: bool = True, large_pages: bool = True) -> None:
        self.keeps, self.large_pages = keeps, large_pages
        self._most = self._mapped = self._largest_copy = 0
        self._end = self._grown = 0  # where the last piece ends, and the farthest that one ever did
        # What of the heap was given out and never written to is in no memory: in order, where such stretches begin and end.
        self._unwritten: list[tuple[int, int]] = []
        self._reserved: dict[int, int] = {}  # how far what was reserved is written to
        self._used: dict[int, Piece] = {}
        self._begins: dict[int, Piece] = {}
        self._ends: dict[int, Piece] = {}
        # The holes that malloc has not looked at yet, by their begins, and the sizes of the others with theirs.
        self._fresh: list[int] = []
        self._sizes: list[int] = []
        self._of_size: dict[int, list[int]] = {}

    @property
    def most(self) -> int:
        """The farthest that the heap, and what lies beside it, came to at a time, in bytes."""
        return self._most + GLOO_THREADS * self._largest_copy

    def resize(self, key: int, size: int) -> None:
        """Have `size` bytes for the tensor of this key, in place of what it had."""
        self.free(key)
        if size:
            piece = self._used[key] = self._place(size)
            self._note_written(piece, piece.size)

    def reserve(self, key: int, size: int) -> None:
        """Have room for so many bytes, of which none is written yet."""
        grown = self._grown
        piece = self._used[key] = self._place(size)
        self._reserved[key] = 0
        if piece.begin >= 0 and piece.end > grown:
            self._unwritten.append((max(grown, piece.begin), piece.end))

    def write(self, key: int, size: int) -> None:
        """Write what was reserved up to `size` bytes."""
        if size > self._reserved[key]:
            self._note_written(self._used[key], size, before=self._reserved[key])
            self._reserved[key] = size

    def free(self, key: int) -> None:
        """Take back what a tensor had, if it had any."""
        piece = self._used.pop(key, Piece(0, 0))
        written = self._reserved.pop(key, piece.size)
        if piece.begin < 0:
            self._mapped -= written
        else:
            self._leave(piece)

    def gather(self, size: int) -> None:
        """Have one of gloo's threads copy what it gathers: its heap keeps the place, unless that was the kernel's."""
        if size < (THREAD_HEAP if self.keeps else GIVEN_BACK):
            self._largest_copy = max(self._largest_copy, size)
        else:
            self._most = max(self._most, self._written + size)

    def _note_written(self, piece: Piece, size: int, before: int = 0) -> None:
        """A piece was written to from `before` to `size`."""
        if piece.begin < 0:
            self._mapped += size - before
        elif self._unwritten:
            end = piece.begin + size
            cut = [(b, min(e, piece.begin)) for b, e in self._unwritten] + [
                (max(b, end), e) for b, e in self._unwritten
            ]
            self._unwritten = sorted({(b, e) for b, e in cut if b < e})
        self._most = max(self._most, self._written)

    @property
    def _written(self) -> int:
        """The bytes that are in memory now."""
        return self._grown - sum(end - begin for begin, end in self._unwritten) + self._mapped

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
        self._leave(Piece(found.begin, begin - found.begin))
        if found.end - begin - size <= LEAST:
            return Piece(begin, found.end - begin)
        self._leave(Piece(begin + size, found.end - begin - size))
        return Piece(begin, size)

    def _hole(self, size: int) -> Piece | None:
        """The smallest hole that is large enough, of which the rest stays one; of the fresh ones the first that fits."""
        while self._fresh:
            hole = self._begins[self._fresh[0]]
            if hole.size == size:
                return self._forget(hole)
            self._sort(hole)
        place = bisect_left(self._sizes, size)
        if place == len(self._sizes):
            return None
        # The first of a size leads to the other sizes, and goes last.
        hole = self._forget(self._begins[self._of_size[self._sizes[place]][:2][-1]])
        if hole.size - size < LEAST:
            return hole
        self._leave(Piece(hole.begin + size, hole.size - size))
        return Piece(hole.begin, size)

    def _sort(self, hole: Piece) -> None:
        """Put a fresh hole among those of its size: behind the first."""
        self._fresh.remove(hole.begin)
        if hole.size not in self._of_size:
            insort(self._sizes, hole.size)
        self._of_size.setdefault(hole.size, []).insert(1, hole.begin)

    def _own(self, size: int) -> Piece | None:
        """A place of its own, where there is none left on the heap and it is large enough for one."""
        # A free end of the heap is given back before it is as large, or something small lies behind it.
        if self.keeps or size < GIVEN_BACK:
            return None
        return Piece(-1, size)

    def _grow(self, size: int) -> Piece:
        self._end += size
        self._grown = max(self._grown, self._end)
        return Piece(self._end - size, size)

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
        self._fresh.append(hole.begin)

    def _forget(self, hole: Piece) -> Piece:
        del self._begins[hole.begin], self._ends[hole.end]
        if hole.begin in self._fresh:
            self._fresh.remove(hole.begin)
            return hole
        alike = self._of_size[hole.size]
        alike.remove(hole.begin)
        if not alike:
            del self._of_size[hole.size], self._sizes[bisect_left(self._sizes, hole.size)]
        return hole


def _piece(size: int) -> int:
    """What malloc takes for `size` bytes."""
    return max(LEAST, -(-(size + HEADER) // STEP) * STEP)
