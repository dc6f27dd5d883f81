"""Hashes of words and of runs of words, all of a text at once: vectorised, and the same on every machine.

Shapes: c characters, w words, n runs of words.
"""

import re
from functools import cache

import numpy as np
import numpy.typing as npt

from llm.data.sampling.order import mix

UInts = npt.NDArray[np.uint64]
# Any odd number has powers that scatter and an inverse, by which a word's hash forgets where the word stands.
BASE = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
STEP = np.uint64(0xD6E8FEB86659FD93)
# Scripts that put no space between words: each of their characters is a word here.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)


def word_hashes(text: str) -> UInts:
    """A hash (w,) of each word of letters and digits, its case folded; what stands between words doesn't count."""
    points = _code_points(text.lower())
    kinds = _kinds()[np.minimum(points, 0xFFFF)]
    inside, alone = kinds > 0, kinds == 2
    before = np.concatenate([[False], inside[:-1]])
    alone_before = np.concatenate([[False], alone[:-1]])
    starts = np.flatnonzero(inside & (~before | alone | alone_before))
    if not len(starts):
        return np.zeros(0, np.uint64)
    powers, inverses = _powers(len(points))
    terms = np.where(inside, points + 1, 0).astype(np.uint64) * powers
    with np.errstate(over="ignore"):
        return mix(np.add.reduceat(terms, starts) * inverses[starts])


def runs(words_w: UInts, length: int) -> UInts:
    """A hash (n,) of each `length` words in a row; of a shorter text one of all its words."""
    length = min(length, len(words_w))
    if length == 0:
        return np.zeros(0, np.uint64)
    count = len(words_w) - length + 1
    hashes = words_w[:count].copy()
    with np.errstate(over="ignore"):
        for at in range(1, length):
            hashes = hashes * STEP + words_w[at : at + count]
    return mix(hashes)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """For each character of the basic plane: 0 between words, 1 in a word, 2 a word by itself."""
    characters = map(chr, range(1 << 16))
    return np.array([2 if UNSPACED.match(c) else c.isalnum() for c in characters], np.uint8)


_table: tuple[UInts, UInts] = (np.ones(1, np.uint64), np.ones(1, np.uint64))


def _powers(count: int) -> tuple[UInts, UInts]:
    """The first `count` powers of BASE and of its inverse, modulo 2^64."""
    global _table
    if len(_table[0]) < count:
        _table = tuple(_geometric(base, max(count, 1 << 16)) for base in (BASE, pow(BASE, -1, 1 << 64)))  # type: ignore[assignment]
    return _table[0][:count], _table[1][:count]


def _geometric(base: int, count: int) -> UInts:
    with np.errstate(over="ignore"):
        return np.multiply.accumulate(np.r_[np.uint64(1), np.full(count - 1, base, np.uint64)])
