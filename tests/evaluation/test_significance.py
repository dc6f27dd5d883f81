"""Intervals and tests beside SciPy's, and beside what is known exactly."""

import numpy as np
import pytest
from scipy import stats

from llm.evaluation.result import metrics_of
from llm.evaluation.significance import differences, intervals, same_examples


def interval(scores_n2, **keys):
    return tuple(intervals(scores_n2[:, None], **keys)[0])


def difference(one_n2, other_n2, **keys):
    (found,) = differences(one_n2[:, None], other_n2[:, None], **keys)
    return found


def ratio(values, weights, axis):
    return values.sum(axis) / weights.sum(axis)


def scores(n=60, seed=0, shift=0.0):
    generator = np.random.default_rng(seed)
    weights = generator.integers(20, 400, n).astype(float)
    return np.stack([weights * generator.normal(2.0 + shift, 0.5, n), weights], axis=1)


@pytest.mark.parametrize("n", [12, 60, 500])
def test_the_interval_is_scipys(n):
    known = scores(n)
    theirs = stats.bootstrap(
        tuple(known.T), ratio, paired=True, method="percentile", n_resamples=20000, rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert interval(known, resamples=20000) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_of_the_same_draws_the_interval_is_scipys_to_rounding():
    generator = np.random.default_rng(0)
    for case in range(200):
        n = int(generator.integers(2, 80))
        known = scores(n, case)
        # Shares of examples that are right as well: figures with few values.
        known = np.stack([known, np.stack([generator.integers(2, size=n), np.ones(n)], axis=1)], axis=1)
        ours = intervals(known, seed=case, resamples=300)
        for number in range(2):
            theirs = stats.bootstrap(
                tuple(known[:, number].T),
                ratio,
                paired=True,
                method="percentile",
                n_resamples=300,
                rng=np.random.default_rng(case),
            ).confidence_interval
            assert ours[number] == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(3).normal(size=2000)
    low, high = interval(np.stack([values, np.ones_like(values)], axis=1), resamples=20000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_the_interval_of_a_difference_is_scipys():
    one, other = scores(), scores()
    other[:, 0] += np.random.default_rng(5).normal(0, 10, len(other))
    theirs = stats.bootstrap(
        (*one.T, *other.T),
        lambda a, b, c, d, axis: ratio(a, b, axis) - ratio(c, d, axis),
        paired=True,
        method="percentile",
        n_resamples=20000,
        rng=1,
    ).confidence_interval
    ours = difference(one, other, resamples=20000)
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)
    assert ours.value == pytest.approx(ratio(*one.T, 0) - ratio(*other.T, 0))


@pytest.mark.parametrize(("won", "lost"), [(9, 1), (15, 6), (4, 4), (30, 12)])
def test_of_right_and_wrong_p_is_mcnemars_exact_one(won, lost):
    one = np.array([1] * won + [0] * lost + [1] * 30, float)
    other = np.array([0] * won + [1] * lost + [1] * 30, float)
    sides = [np.stack([side, np.ones_like(side)], axis=1) for side in (one, other)]
    exact = stats.binomtest(won, won + lost).pvalue
    spread = 4 * np.sqrt(exact * (1 - exact) / 50000) + 1e-4
    assert difference(*sides, permutations=50000).p == pytest.approx(exact, abs=spread)


def test_p_is_scipys_permutation_test():
    one, other = scores(40, 1), scores(40, 1)
    other[:, 0] += np.random.default_rng(2).normal(8, 30, len(other))
    theirs = stats.permutation_test(
        (one[:, 0] - other[:, 0],),
        lambda change, axis: change.sum(axis) / one[:, 1].sum(),
        permutation_type="samples",
        vectorized=True,
        n_resamples=50000,
        rng=3,
    ).pvalue
    assert 0.001 < theirs < 0.9
    assert difference(one, other, permutations=50000).p == pytest.approx(theirs, abs=0.01)


def test_under_no_difference_p_is_uniform():
    generator = np.random.default_rng(7)
    found = []
    for seed in range(200):
        sides = [np.stack([generator.normal(size=30), np.ones(30)], axis=1) for _ in range(2)]
        found.append(difference(*sides, seed=seed, resamples=10, permutations=400).p)
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_the_same_figures_differ_by_nothing():
    known = scores()
    assert difference(known, known) == (0.0, 0.0, 0.0, 1.0)


def test_examples_are_paired_by_their_ids():
    rows = [{"id": "a", "scores": {"x": [1, 1], "y": [1, 1]}}, {"id": "b", "scores": {"x": [0, 1]}}]
    assert metrics_of(rows) == ["x"]
    assert same_examples(rows, rows)
    assert not same_examples(rows, rows[::-1])
