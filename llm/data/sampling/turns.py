"""Who has each sample of an endless sequence when several share it by weight: exact at every point, found from anywhere.

Sample n is of source i or not so that, of the first n samples, i has had n w_i rounded down or up, w_i being its share:
at no point is a source a whole sample away from its share. Such a sequence exists for any shares (Tijdeman, 1980). Here
sample k of source i, counted from 0, may stand at places [floor(k / w_i), ceil((k + 1) / w_i)), and of what may stand at
a place that which must stand soonest does (Baruah et al., 1996: proportionate fairness, earliest deadline first).

So that any place is found without those before it, the sequence is made in blocks. What is open at a block's end (of
which sources the next sample stands before it) is decided by another, overlapping sequence that covers all that may
stand on both sides of the end; Hall's condition for intervals then says that the block can be filled.
"""

import heapq
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import lcm

import numpy as np

# Samples that are placed at a time.
BLOCK = 1 << 12
BLOCKS_KEPT = 4


class Turns:
    """Places [0, inf), each of one of the sources with these `weights`, which are above 0 and taken as they are written.

    A tenth is taken for a tenth, and no rounding adds up over any number of samples.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        parts = [Fraction(str(weight)) for weight in weights]
        scale = lcm(*(part.denominator for part in parts))
        self._weights = [int(part * scale) for part in parts]
        self._total = sum(self._weights)
        # No sample can stand at more than so many places.
        self._reach = self._total // min(self._weights) + 2
        self.block = max(BLOCK, self._reach)
        self._ends: dict[int, list[int]] = {}
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def place(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source (n,) of each sample (n,), and which of that source's own it is (n,)."""
        numbers = samples // self.block
        sources, own = np.empty_like(samples), np.empty_like(samples)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            at = samples[here] - number * self.block
            sources[here], own[here] = (row[at] for row in self._filled(number))
        return sources, own

    def counts(self, n: int) -> np.ndarray:
        """How many samples of each source there are before sample `n`."""
        number, rest = divmod(n, self.block)
        sources = self._filled(number)[0][:rest] if rest else np.zeros(0, np.int64)
        return np.array(self._end(number)) + np.bincount(sources, minlength=len(self._weights))

    def find(self, source: int, own: int) -> int:
        """The place of a source's sample `own`."""
        number = self._from(source, own) // self.block
        while True:
            sources, owns = self._filled(number)
            found = np.flatnonzero((sources == source) & (owns == own))
            if len(found):
                return number * self.block + int(found[0])
            number += 1

    def _from(self, source: int, own: int) -> int:
        """The first place where a source's sample may stand."""
        return own * self._total // self._weights[source]

    def _until(self, source: int, own: int) -> int:
        """The place before which it must stand."""
        return -(-(own + 1) * self._total // self._weights[source])

    def _filled(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The sources of a block's samples and which of their own they are; the last few blocks are kept."""
        if number not in self._blocks:
            if len(self._blocks) >= BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
            first = number * self.block
            self._blocks[number] = self._fill(first, self._end(number), self._end(number + 1))
        return self._blocks[number]

    def _end(self, number: int) -> list[int]:
        """How many samples of each source stand before block `number`."""
        if number not in self._ends:
            place = number * self.block
            if len(self._ends) > 2 * BLOCKS_KEPT:
                del self._ends[next(iter(self._ends))]
            self._ends[number] = self._decided(place)
        return self._ends[number]

    def _decided(self, place: int) -> list[int]:
        """As many before `place` as a sequence gives that is too long on both sides for its own ends to matter."""
        begin, end = max(0, place - self._reach), place + self._reach
        before = self._open(begin, self._until)
        sources, _ = self._fill(begin, before, self._open(end, self._from))
        had = np.bincount(sources[: place - begin], minlength=len(before))
        return [count + int(more) for count, more in zip(before, had, strict=True)]

    def _open(self, place: int, key: Callable[[int, int], int]) -> list[int]:
        """As many before `place` as their shares rounded down and, of what is open there, those first by `key`."""
        counts = [place * weight // self._total for weight in self._weights]
        is_open = [at for at, weight in enumerate(self._weights) if place * weight % self._total]
        for at in sorted(is_open, key=lambda at: key(at, counts[at]))[: place - sum(counts)]:
            counts[at] += 1
        return counts

    def _fill(self, first: int, before: list[int], after: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The places from `first` on: sources with `before` samples each get theirs until each has `after`."""
        counts = list(before)
        waiting = [(self._from(at, n), at) for at, n in enumerate(counts) if n < after[at]]
        heapq.heapify(waiting)
        ready: list[tuple[int, int]] = []
        size = sum(after) - sum(before)
        sources, owns = np.empty(size, np.int64), np.empty(size, np.int64)
        for at in range(size):
            while waiting and waiting[0][0] <= first + at:
                source = heapq.heappop(waiting)[1]
                heapq.heappush(ready, (self._until(source, counts[source]), source))
            source = heapq.heappop(ready)[1]
            sources[at], owns[at] = source, counts[source]
            counts[source] += 1
            if counts[source] < after[source]:
                heapq.heappush(waiting, (self._from(source, counts[source]), source))
        return sources, owns
