"""How sure a figure is, and the difference of two models' figures: bootstrap and permutations over the same examples."""

# Shape legend: n examples, r resamples, 2 the numerator and the denominator of the figure.

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from llm.evaluation.result import Row

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


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """The metrics that every example has a score of."""
    return [name for name in rows[0]["scores"] if all(name in row["scores"] for row in rows)] if rows else []


def scores_of(rows: Sequence[Row], metric: str) -> np.ndarray:
    """What each example adds to a metric's numerator and denominator (n, 2)."""
    return np.array([row["scores"][metric] for row in rows], float)


def same_examples(one: Sequence[Row], other: Sequence[Row]) -> bool:
    """Whether two models were asked the same examples, in the same order."""
    return [row["id"] for row in one] == [row["id"] for row in other]


def interval(scores_n2: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The bootstrap's 95% interval of a figure, by percentiles: examples are drawn anew, with replacement."""
    figure_r = np.concatenate(
        [_figure(scores_n2[drawn].sum(1)) for drawn in _drawn(len(scores_n2), seed, resamples)]
    )
    return _percentiles(figure_r)


def difference(
    one_n2: np.ndarray,
    other_n2: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Difference:
    """How two models differ on the same examples.

    The interval is a paired bootstrap's: both get the same draw. `p` is of the two-sided paired permutation test, in
    which each example's scores change sides by a coin: the share of such worlds that differ at least as much.
    """
    both_n4 = np.concatenate([one_n2, other_n2], axis=1)
    value = _differ(both_n4.sum(0))
    drawn_r = np.concatenate(
        [_differ(both_n4[drawn].sum(1)) for drawn in _drawn(len(both_n4), seed, resamples)]
    )
    swapped_r = np.concatenate([*_swapped(both_n4, seed + 1, permutations)])
    # What differs by rounding alone is as much.
    as_much = np.count_nonzero(np.abs(swapped_r) >= abs(value) * (1 - 1e-9))
    return Difference(float(value), *_percentiles(drawn_r), (as_much + 1) / (permutations + 1))


def _figure(sums_2: np.ndarray) -> np.ndarray:
    return sums_2[..., 0] / sums_2[..., 1]


def _differ(sums_4: np.ndarray) -> np.ndarray:
    return _figure(sums_4[..., :2]) - _figure(sums_4[..., 2:])


def _drawn(n: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Some resamples (r, n) at a time, as numbers of examples."""
    generator = np.random.default_rng(seed)
    yield from _in_parts(n, resamples, lambda rows: generator.integers(n, size=(rows, n)))


def _swapped(both_n4: np.ndarray, seed: int, permutations: int) -> Iterator[np.ndarray]:
    """The differences (r,) where a coin says for each example whether its scores change sides."""
    generator = np.random.default_rng(seed)
    change_n4 = np.roll(both_n4, 2, axis=1) - both_n4
    for coins_rn in _in_parts(
        len(both_n4), permutations, lambda rows: generator.integers(2, size=(rows, len(both_n4)))
    ):
        yield _differ(both_n4.sum(0) + coins_rn @ change_n4)


def _in_parts(n: int, resamples: int, draw: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
    at_once = max(1, DRAWN // max(n, 1))
    for first in range(0, resamples, at_once):
        yield draw(min(at_once, resamples - first))


def _percentiles(figure_r: np.ndarray) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(figure_r, [tail, 1 - tail])
    return float(low), float(high)
