"""The geometry of charts."""

import math
import random

import pytest

from llm.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    chart,
    chart_over_choices,
    label,
    marks,
    thinned,
)


def test_every_point_is_inside_and_ends_touch_the_sides():
    points = [(step, math.sin(step)) for step in range(10, 100)]
    (curve,) = chart("", [Series("a", points)]).curves
    assert [point[:2] for point in curve.points] == points
    assert (curve.points[0][2], curve.points[-1][2]) == (LEFT, WIDTH - RIGHT)
    assert all(TOP <= y <= HEIGHT - BOTTOM for *_, y in curve.points)


def test_up_is_more():
    (curve,) = chart("", [Series("a", [(0, 1.0), (1, 2.0)])]).curves
    assert curve.points[0][3] > curve.points[1][3]


def test_an_axis_can_begin_at_zero():
    drawn = chart("", [Series("a", [(0, 90.0), (1, 100.0)])], from_zero=True)
    assert (drawn.y_ticks[0].label, drawn.y_ticks[0].place) == ("0", HEIGHT - BOTTOM)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9, 1e12])
def test_one_point_is_a_dot(value):
    (curve,) = chart("", [Series("a", [(10, value)])]).curves
    ((x, y),) = curve.dots
    assert LEFT < x < WIDTH - RIGHT
    assert TOP <= y <= HEIGHT - BOTTOM


def test_nothing_finite_is_no_chart():
    assert chart("", [Series("a", []), Series("b", [(1, math.nan), (2, math.inf)])]) is None
    (curve,) = chart("", [Series("a", [(1, math.nan), (2, 1.0)]), Series("b", [])]).curves
    assert len(curve.points) == 1


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (10, 3000), (1.93, 8.02), (-2, 2), (0, 1e-4), (3.001, 3.002), (0, 2e13)]
)
def test_marks_are_round_and_few(low, high):
    inside, outside = list(marks(low, high, 5)), list(marks(low, high, 5, around=True))
    assert all(low <= mark <= high for mark in inside)
    assert outside[0] <= low < high <= outside[-1]
    assert 2 <= len(inside) <= 7
    assert 2 <= len(outside) <= 8
    assert all(len(f"{mark:.9g}") <= 7 for mark in outside)


def test_thinning_keeps_spikes_and_ends():
    random.seed(0)
    points = [(step, random.random()) for step in range(10_000)]
    points[4321] = (4321, 50.0)
    points[7777] = (7777, -50.0)
    kept = thinned(points, 400)
    assert len(kept) <= 400
    assert {points[0], points[4321], points[7777], points[-1]} <= set(kept)
    assert kept == sorted(kept)
    assert thinned(points[:400], 400) == points[:400]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (0.001, "0.001"),
        (0.0001, "0.0001"),
        (2e-5, "2e-5"),
        (1500, "1.5k"),
        (2e6, "2M"),
    ],
)
def test_labels(number, text):
    assert label(number) == text


def test_a_chart_over_choices_has_the_values_for_ticks():
    drawn = chart_over_choices("t", {"a": [("0.001", 2.0), ("0.1", 1.0), ("0.01", 3.0)], "b": [("0.1", 4.0)]})
    assert [tick.label for tick in drawn.x_ticks] == ["0.001", "0.01", "0.1"]
    first, second, third = (tick.place for tick in drawn.x_ticks)
    assert second - first == pytest.approx(third - second)
    assert [(point[0], point[1]) for point in drawn.curves[0].read_off] == [
        ("0.001", 2.0),
        ("0.01", 3.0),
        ("0.1", 1.0),
    ]


def test_words_stand_in_a_row_and_near_numbers_in_proportion():
    words = chart_over_choices("t", {"a": [("rms", 2.0), ("layer", 1.0)]})
    assert [tick.label for tick in words.x_ticks] == ["rms", "layer"]
    assert [tick.place - LEFT for tick in words.x_ticks] == pytest.approx(
        [(WIDTH - LEFT - RIGHT) / 4, (WIDTH - LEFT - RIGHT) * 3 / 4]
    )
    near = chart_over_choices("t", {"a": [("1", 2.0), ("2", 1.0), ("4", 1.0)]})
    first, second, third = (tick.place for tick in near.x_ticks)
    assert third - second == pytest.approx(2 * (second - first))


def test_nothing_judged_gives_no_chart():
    assert chart_over_choices("t", {}) is None
    assert chart_over_choices("t", {"a": [("1", math.nan)]}) is None
