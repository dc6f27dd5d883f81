"""Steps that compare documents with one another: near-duplicates by MinHash, and lines that come again.

Shapes: d documents, k hash functions, n runs of words, l lines.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from llm.bounds import Count, PositiveShare, Whole
from llm.data.sampling.order import mix
from llm.data.steps.base import TextStep
from llm.data.steps.hashing import UInts, runs, word_hashes
from llm.data.steps.repeats import repeats_by_part
from llm.errors import ConfigError

RUNS_AT_ONCE = 1 << 10
# Bound of memory: keys that are sorted at once.
KEYS_AT_ONCE = 1 << 22


class Repeats(NamedTuple):
    """Documents that repeat earlier ones, by their numbers over all pieces, and one that each repeats."""

    numbers: np.ndarray
    of: np.ndarray


@runtime_checkable
class Comparison(Protocol):
    """A step that sees all documents: what it keeps of each is written down, and compared at the end."""

    dtype: str

    @property
    def width(self) -> int:
        """How many numbers are kept of a document."""
        ...

    def marks(self, text: str) -> np.ndarray:
        """What is kept of a document: an array (width,)."""
        ...

    def repeats(self, marks: Sequence[np.ndarray]) -> Repeats:
        """Which documents repeat earlier ones, from the marks (d, width) of each piece in order."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that decides what it finds, for the fingerprint."""
        ...


@runtime_checkable
class LineComparison(Protocol):
    """A step that sees the lines of all documents: a mark of each is written down, and compared at the end."""

    def marks(self, text: str) -> np.ndarray:
        """A mark of each line of a document (l,), uint64: `STARTS` is set in the first alone."""
        ...

    def repeated_lines(self, marks: Sequence[np.ndarray], left_out: np.ndarray) -> Iterator[np.ndarray]:
        """Which lines repeat earlier ones, by their numbers over the marks (l,) of all pieces in order, some at a time.

        Lines of the documents whose sorted numbers are `left_out` are no earlier ones.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """All that decides what it finds, for the fingerprint."""
        ...


# The bit of a line's mark that says that a document begins with it; the others are its hash, 0 where it always stays.
STARTS = np.uint64(1)


def document_numbers(marks_l: np.ndarray) -> np.ndarray:
    """The document (l,) of each line, counted from the first of the piece."""
    return np.cumsum(marks_l & STARTS, dtype=np.int64) - 1


@dataclass(frozen=True)
class DuplicateLines(TextStep):
    """Of lines that are the same the first stays, whichever document it is in, as CCNet does (Wenzek et al., 2020).

    Lines are compared as they are, but for white space around them, by 63 bits of their SHA-256. Those of fewer than
    `min_words` words always stay, blank ones too. A document of which no other line is left is left out.
    """

    min_words: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_words < 1:
            raise ConfigError("DuplicateLines: min_words is at least 1.")

    def marks(self, text: str) -> np.ndarray:
        """A mark of each line."""
        marks_l = np.array([self._hash(line) for line in text.split("\n")], np.uint64) & ~STARTS
        marks_l[0] |= STARTS
        return marks_l

    def _hash(self, line: str) -> int:
        if len(line.split()) < self.min_words:
            return 0
        return int.from_bytes(hashlib.sha256(line.strip().encode()).digest()[:8], "little")

    def repeated_lines(self, marks: Sequence[np.ndarray], left_out: np.ndarray) -> Iterator[np.ndarray]:
        """The repeats, in the memory of a part of the hashes."""
        ends = np.cumsum([0, *(int((some & STARTS).sum()) for some in marks)])
        return repeats_by_part(
            [
                partial(_hashes, marks, number, left_out - first)
                for number, first in enumerate(ends[:-1].tolist())
            ]
        )


def _hashes(marks: Sequence[np.ndarray], number: int, left_out: np.ndarray) -> np.ndarray:
    """The hashes of a piece's lines, 0 for those of documents that are left out."""
    marks_l = marks[number]
    return np.where(np.isin(document_numbers(marks_l), left_out), 0, marks_l & ~STARTS)


@dataclass(frozen=True)
class NearDuplicates(TextStep):
    """Of documents that are nearly the same the first stays: MinHash with banding (Broder, 1997; Leskovec et al., 2014).

    Documents are compared as sets of runs of `ngram` words, without case and punctuation. Two are candidates where
    all `rows` hashes of one of `bands` bands agree, which has probability 1 - (1 - s^rows)^bands at a Jaccard
    similarity s, and near-duplicates where `threshold` or more of all bands x rows hashes agree. What is nearly the
    same as a near-duplicate is one too. The defaults find copies with a fifth of their words edited: of their runs of two
    words about half are the same, of runs of five a fifth. FineWeb (Penedo et al., 2024) takes 5 words, 14 bands of 8
    and no threshold, which finds copies with a few words edited.
    """

    ngram: Count = 2
    bands: Count = 64
    rows: Count = 4
    threshold: PositiveShare = 0.35
    seed: Whole = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.ngram, self.bands, self.rows) < 1 or not 0 < self.threshold <= 1:
            raise ConfigError(
                "NearDuplicates: ngram, bands and rows are at least 1, threshold is above 0 and at most 1."
            )

    dtype = "<u4"

    @property
    def width(self) -> int:
        """Hashes kept of a document."""
        return self.bands * self.rows

    @cached_property
    def _functions(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors and summands (k, 1) of the hash functions."""
        numbers = mix(np.arange(2 * self.width, dtype=np.uint64) + np.uint64(self.seed << 32))
        words = (numbers >> np.uint64(32)).astype(np.uint32).reshape(2, -1, 1)
        return words[0] | np.uint32(1), words[1]

    def marks(self, text: str) -> np.ndarray:
        """The least value (k,) of each hash function over the document's runs."""
        hashes = np.unique((runs(word_hashes(text), self.ngram) >> np.uint64(32)).astype(np.uint32))
        least = np.full(self.width, 0xFFFFFFFF, np.uint32)
        factors, summands = self._functions
        for start in range(0, len(hashes), RUNS_AT_ONCE):
            values_kn = factors * hashes[start : start + RUNS_AT_ONCE]
            values_kn += summands
            np.minimum(least, values_kn.min(axis=1), out=least)
        return least

    def repeats(self, marks: Sequence[np.ndarray]) -> Repeats:
        """The near-duplicates; about 30 bytes of memory a document, and the keys of a part of one band."""
        ends = np.cumsum([0, *map(len, marks)])
        groups = Groups(int(ends[-1]))
        for band in range(self.bands):
            for first, second in self._candidates(marks, band):
                ahead = groups.apart(first, second)
                first, second = first[ahead], second[ahead]
                alike = self._alike(marks, ends, first, second)
                groups.join(first[alike], second[alike])
        return groups.repeats()

    def _candidates(self, marks: Sequence[np.ndarray], band: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs whose hashes agree in a band: each document with the first and with the last before it."""
        total = sum(map(len, marks))
        parts = 1 + total // KEYS_AT_ONCE
        for part in range(parts):
            keys, numbers, first = [], [], 0
            for some in marks:
                key = self._key(some, band)
                # A document without words is like no other.
                chosen = np.flatnonzero((key % np.uint64(parts) == part) & (some[:, 0] != 0xFFFFFFFF))
                keys.append(key[chosen])
                numbers.append(first + chosen)
                first += len(some)
            yield from _pairs(np.concatenate(keys), np.concatenate(numbers))

    def _key(self, marks_dk: np.ndarray, band: int) -> UInts:
        columns = np.asarray(marks_dk[:, band * self.rows : (band + 1) * self.rows]).astype(np.uint64)
        return runs(columns.T, self.rows)[0] if self.rows > 1 else mix(columns[:, 0])

    def _alike(
        self, marks: Sequence[np.ndarray], ends: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> np.ndarray:
        """Whether enough hashes agree, for each pair."""
        result = np.zeros(len(first), bool)
        for start in range(0, len(first), RUNS_AT_ONCE):
            some = slice(start, start + RUNS_AT_ONCE)
            same = _rows(marks, ends, first[some]) == _rows(marks, ends, second[some])
            result[some] = same.mean(axis=1) >= self.threshold
        return result


def _pairs(keys: UInts, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order = np.argsort(keys, kind="stable")
    keys, numbers = keys[order], numbers[order]
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    if not len(same):
        return
    leaders = np.maximum.accumulate(
        np.where(np.concatenate([[True], keys[1:] != keys[:-1]]), np.arange(len(keys)), 0)
    )
    yield numbers[leaders[same]], numbers[same]
    later = same[leaders[same] != same - 1]
    yield numbers[later - 1], numbers[later]


def _rows(marks: Sequence[np.ndarray], ends: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The marks (d, k) of the documents `numbers`."""
    piece = np.searchsorted(ends, numbers, side="right") - 1
    found = np.empty((len(numbers), marks[0].shape[1]), marks[0].dtype)
    for number in np.unique(piece):
        chosen = np.flatnonzero(piece == number)
        found[chosen] = marks[number][numbers[chosen] - ends[number]]
    return found


class Groups:
    """Documents that belong together, each group led by its first."""

    def __init__(self, count: int) -> None:
        self._leader = np.arange(count)

    def _find(self, numbers: np.ndarray) -> np.ndarray:
        leaders = self._leader[numbers]
        while len(changed := np.flatnonzero(self._leader[leaders] != leaders)):
            leaders[changed] = self._leader[leaders[changed]]
        return leaders

    def apart(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether the documents of each pair are not yet known to belong together."""
        return self._find(first) != self._find(second)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Put the groups of each pair together."""
        while len(first):
            low, high = np.sort([self._find(first), self._find(second)], axis=0)
            apart = low != high
            first, second, low, high = first[apart], second[apart], low[apart], high[apart]
            # Of several new leaders for one group the first is taken, and the others wait for the next round.
            np.minimum.at(self._leader, high, low)

    def repeats(self) -> Repeats:
        """All documents but the first of each group, with that first one."""
        numbers = np.arange(len(self._leader))
        leaders = self._find(numbers)
        later = np.flatnonzero(leaders != numbers)
        return Repeats(later, leaders[later])
