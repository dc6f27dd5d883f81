"""How sure a figure is, and the difference of two models' figures: bootstrap and permutations over the same examples.

Shapes: n examples, m figures, r resamples, 2 the numerator and the denominator of a figure.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from llm.evaluation.result import Row, figure

RESAMPLES = 2000
PERMUTATIONS = 9999
LEVEL = 0.95
# Numbers drawn at once: bounds memory.
DRAWN = 1 << 22


class Difference(NamedTuple):
    """Of two figures: the first less the second, the interval around it, and how likely as much is by chance."""

    value: float
    low: float
    high: float
    p: float


def same_examples(one: Sequence[Row], other: Sequence[Row]) -> bool:
    """Whether two models were asked the same examples, in the same order."""
    return [row["id"] for row in one] == [row["id"] for row in other]


def intervals(scores_nm2: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """The bootstrap's 95% intervals (m, 2) of figures, by percentiles: examples are drawn anew, with replacement."""
    return _percentiles(np.concatenate([figure(sums) for sums in _drawn(scores_nm2, seed, resamples)]))


def differences(
    one_nm2: np.ndarray,
    other_nm2: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> list[Difference]:
    """How two models' figures differ on the same examples.

    The interval is a paired bootstrap's: both get the same draw. `p` is of the two-sided paired permutation test, in
    which each example's scores change sides by a coin: the share of such worlds that differ at least as much.
    """
    both_nm4 = np.concatenate([one_nm2, other_nm2], axis=-1)
    value_m = _differ(both_nm4.sum(0))
    drawn_rm = np.concatenate([_differ(sums) for sums in _drawn(both_nm4, seed, resamples)])
    swapped_rm = np.concatenate([_differ(sums) for sums in _swapped(both_nm4, seed + 1, permutations)])
    # What differs by rounding alone is as much.
    as_much_m = np.count_nonzero(np.abs(swapped_rm) >= np.abs(value_m) * (1 - 1e-9), axis=0)
    p_m = (as_much_m + 1) / (permutations + 1)
    found = zip(value_m.tolist(), _percentiles(drawn_rm).tolist(), p_m.tolist(), strict=True)
    return [Difference(value, low, high, p) for value, (low, high), p in found]


def _differ(sums_m4: np.ndarray) -> np.ndarray:
    return figure(sums_m4[..., :2]) - figure(sums_m4[..., 2:])


def _drawn(scores_nmk: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Sums (r, m, k) over some resamples at a time: each example counts as often as it was drawn."""
    generator = np.random.default_rng(seed)
    n = len(scores_nmk)
    for rows in _in_parts(n, resamples):
        numbers_rn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts_rn = np.bincount(numbers_rn.ravel(), minlength=rows * n).reshape(rows, n)
        yield np.tensordot(counts_rn.astype(float), scores_nmk, 1)


def _swapped(both_nm4: np.ndarray, seed: int, permutations: int) -> Iterator[np.ndarray]:
    """Sums (r, m, 4) where a coin says for each example whether its scores change sides."""
    generator = np.random.default_rng(seed)
    change_nm4 = np.roll(both_nm4, 2, axis=-1) - both_nm4
    for rows in _in_parts(len(both_nm4), permutations):
        coins_rn = generator.integers(2, size=(rows, len(both_nm4)))
        yield both_nm4.sum(0) + np.tensordot(coins_rn.astype(float), change_nm4, 1)


def _in_parts(n: int, resamples: int) -> Iterator[int]:
    """How many resamples of `n` examples are made at once, until there are enough."""
    at_once = max(1, DRAWN // max(n, 1))
    for first in range(0, resamples, at_once):
        yield min(at_once, resamples - first)


def _percentiles(figures_rm: np.ndarray) -> np.ndarray:
    tail = (1 - LEVEL) / 2
    return np.quantile(figures_rm, [tail, 1 - tail], axis=0).T
