"""Text cut into words whose ids are those of the whole, and the ids of words seen before: arrays, no loop over words.

Shapes: n bytes of text, w words, i ids.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from threading import Lock

import numpy as np

BYTES_AT_ONCE, WORDS_AT_ONCE = 1 << 16, 1 << 15
COLUMNS = 3
LONGEST_KEPT = 8 * COLUMNS
# Read past the end of the text, so that a word's columns can be taken anywhere.
PADDING = bytes(LONGEST_KEPT)
PLACES_BITS = 18
MAX_IDS = 1 << 21
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# What stays of the column `number` of a word of `size` bytes.
_MASKS = np.array(
    [
        [(1 << 8 * min(max(size - 8 * number, 0), 8)) - 1 for size in range(LONGEST_KEPT + 1)]
        for number in range(COLUMNS)
    ],
    np.uint64,
)


class Cuts:
    """Where text may be cut without changing its ids: between two bytes that no piece holds side by side.

    Such a place no merge and no piece reaches over. A cut never parts the bytes of a character, and always NUL from
    its neighbours, which must stand in none of the `pieces` (n,).
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        may_cut = np.ones((256, 256), bool)
        text = np.frombuffer(b"\0".join(pieces), np.uint8)
        may_cut[text[:-1], text[1:]] = False
        may_cut[0], may_cut[:, 0] = True, True
        may_cut[:, 0x80:0xC0] = False
        self._may_cut = may_cut.ravel()

    def starts(self, text: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Where words start (w,) in UTF-8 text (n,), those at the `bounds` in it too."""
        starts_n = np.zeros(len(text), bool)
        for low in range(1, len(text), BYTES_AT_ONCE):
            part = text[low - 1 : low + BYTES_AT_ONCE]
            pairs = part[:-1].astype(np.intp)
            pairs <<= 8
            pairs |= part[1:]
            starts_n[low : low + len(pairs)] = self._may_cut[pairs]
        starts_n[bounds[bounds < len(text)]] = True
        return np.flatnonzero(starts_n)


class _Places:
    """Where the ids of words of up to `LONGEST_KEPT` bytes stand.

    A word is kept in one place, which its hash names, until another takes it: memory is bounded, and frequent words
    come back at once. It is given as columns (w,) of eight bytes, filled up with NUL, which no longer word holds.
    """

    def __init__(self) -> None:
        self._kept = np.zeros((COLUMNS, 1 << PLACES_BITS), np.uint64)
        self.firsts, self.counts = np.zeros((2, 1 << PLACES_BITS), np.int32)

    def find(self, words: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The place of each word (w,), and whether it is there (w,)."""
        mixed = words[0] * _MULTIPLIER
        for column in words[1:]:
            mixed = ((mixed >> np.uint64(32)) ^ mixed ^ column) * _MULTIPLIER
        places = (mixed >> np.uint64(64 - PLACES_BITS)).astype(np.intp)
        known = self.counts[places] > 0
        for kept, column in zip(self._kept, words, strict=True):
            known &= kept[places] == column
        return places, known

    def keep(
        self, places: np.ndarray, words: Sequence[np.ndarray], firsts: np.ndarray, counts: np.ndarray
    ) -> None:
        """Let words take their places."""
        for kept, column in zip(self._kept, words, strict=True):
            kept[places] = column
        self.firsts[places], self.counts[places] = firsts, counts


def _columns(text: bytes, starts: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """The bytes of words as `_Places` takes them."""
    eights = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
    return [eights[starts + 8 * number] & masks[sizes] for number, masks in enumerate(_MASKS)]


class WordCache:
    """The ids of words by `encode`, which is asked for those not seen lately; threads may share it."""

    def __init__(self, encode: Callable[[list[str]], Sequence[Sequence[int]]]) -> None:
        self._encode = encode
        self._lock = Lock()
        self._forget()

    def _forget(self) -> None:
        self._places = _Places()
        self._ids, self._n_ids = np.zeros(MAX_IDS, np.int32), 0

    def ids(self, text: bytes, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids (i,) of the words that start at `starts` (w,) and how many each has (w,); `PADDING` ends the text."""
        ends = np.append(starts[1:], len(text) - len(PADDING))
        parts = [(np.zeros(0, np.int32), np.zeros(0, np.int64))]
        for low in range(0, len(starts), WORDS_AT_ONCE):
            part = slice(low, low + WORDS_AT_ONCE)
            with self._lock:
                parts.append(self._part(text, starts[part], ends[part]))
        ids, counts = zip(*parts, strict=True)
        return np.concatenate(ids), np.concatenate(counts)

    def _part(self, text: bytes, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._n_ids > MAX_IDS:
            self._forget()
        sizes = ends - starts
        short = sizes <= LONGEST_KEPT
        words = _columns(text, starts, np.minimum(sizes, LONGEST_KEPT))
        places, known = self._places.find(words)
        firsts, counts = self._places.firsts[places], self._places.counts[places]
        new = np.flatnonzero(~(known & short))
        if len(new):
            firsts[new], counts[new] = self._learn(text, starts[new], ends[new])
            kept = new[short[new]]
            columns = [column[kept] for column in words]
            self._places.keep(places[kept], columns, firsts[kept], counts[kept])
        return self._ids[_ranges(firsts, counts)], counts

    def _learn(self, text: bytes, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Have words encoded, each once; where the ids of each begin among all, and how many they are."""
        words = [text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
        encoded = self._encode([word.decode() for word in numbers])
        counts = np.fromiter(map(len, encoded), np.int64, len(encoded))
        firsts = self._n_ids + np.cumsum(counts) - counts
        self._append(np.fromiter(chain.from_iterable(encoded), np.int32, int(counts.sum())))
        which = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
        return firsts[which], counts[which]

    def _append(self, ids: np.ndarray) -> None:
        before, self._n_ids = self._n_ids, self._n_ids + len(ids)
        if self._n_ids > len(self._ids):
            self._ids = np.concatenate([self._ids[:before], ids])
        else:
            self._ids[before : self._n_ids] = ids


def _ranges(firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """first, first + 1, … of each range in turn."""
    ends = np.cumsum(counts)
    return np.repeat(firsts - ends + counts, counts) + np.arange(ends[-1])
