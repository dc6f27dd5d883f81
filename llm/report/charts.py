"""The geometry of small line charts: what a template needs to draw them as SVG, and a script to read them off."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

Point = tuple[float, float]

WIDTH, HEIGHT = 420, 244
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 42
MOST_POINTS = 600
LETTER = 6.5  # the width of one in a label, about
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: a name and points (step, value) in the order of their steps."""

    name: str
    points: Sequence[Point]


@dataclasses.dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in the chart's coordinates."""

    place: float
    label: str


@dataclasses.dataclass(frozen=True)
class Curve:
    """A series as it is drawn.

    Args:
        name: of the series.
        number: of the series among those given, from 0, whether or not others have points; it gives the colour.
        path: what SVG's `d` takes.
        dots: places that are marked, where points are few.
        points: (step, value, x, y) of each point drawn.
        labels: what stands for the step of each point, where that is no number to be read.
    """

    name: str
    number: int
    path: str
    dots: list[Point]
    points: list[tuple[float, float, float, float]]
    labels: list[str] = dataclasses.field(default_factory=list)

    @property
    def read_off(self) -> list[tuple[float | str, float, float, float]]:
        """The points as a reader is told of them."""
        names: Sequence[float | str] = self.labels or [step for step, *_ in self.points]
        return [(name, value, x, y) for name, (_, value, x, y) in zip(names, self.points, strict=True)]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart, ready to draw in a box of `WIDTH` by `HEIGHT`."""

    title: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(title: str, series: Sequence[Series], from_zero: bool = False, whole: bool = True) -> Chart | None:
    """Lay out a chart; None where no series has a finite point.

    Args:
        title: what it shows.
        series: the lines; points that aren't finite are left out.
        from_zero: whether the vertical axis begins at zero.
        whole: whether whole numbers alone are marked on the horizontal axis, which counts steps.
    """
    steps = [step for s in series for step, value in s.points if math.isfinite(value)]
    if not steps:
        return None
    low, high = spread(min(steps), max(steps))
    ticks = {mark: label(mark) for mark in marks(low, high, 5) if mark == int(mark) or not whole}
    return _laid_out(title, series, (low, high), ticks, from_zero)


def chart_over_choices(title: str, lines: Mapping[str, Sequence[tuple[str, float]]]) -> Chart | None:
    """Lay out a chart over values as they were typed; None where no line has a finite point.

    Numbers stand where they belong, on a logarithmic axis if they differ by a factor of ten; words stand in a row,
    with half a place beside the first and the last.

    Args:
        title: what it shows.
        lines: (value as typed, figure) of each line by its name, in any order.
    """
    places, margin = _places([text for points in lines.values() for text, _ in points])
    series = [
        Series(name, sorted((places[text], figure) for text, figure in points))
        for name, points in lines.items()
    ]
    if not any(math.isfinite(figure) for s in series for _, figure in s.points):
        return None
    ticks = {place: text for text, place in places.items()}
    x_range = spread(min(ticks) - margin, max(ticks) + margin)
    drawn = _laid_out(title, series, x_range, ticks, from_zero=False)
    curves = [
        dataclasses.replace(one, labels=[ticks[point[0]] for point in one.points]) for one in drawn.curves
    ]
    return dataclasses.replace(drawn, curves=curves, x_ticks=_apart(drawn.x_ticks))


def _places(texts: Sequence[str]) -> tuple[dict[str, float], float]:
    """Where each of these values stands on an axis, and how much room the outer ones need beside them."""
    known = list(dict.fromkeys(texts))
    try:
        numbers = [float(text) for text in known]
    except ValueError:
        return {text: float(place) for place, text in enumerate(known)}, 0.5
    if min(numbers, default=0.0) > 0 and max(numbers) >= 10 * min(numbers):
        numbers = [math.log10(number) for number in numbers]
    return dict(zip(known, numbers, strict=True)), 0.0


def _apart(ticks: Sequence[Tick]) -> list[Tick]:
    """Those ticks whose labels don't run into the one before."""
    kept: list[Tick] = []
    for tick in sorted(ticks, key=lambda tick: tick.place):
        if (
            not kept
            or tick.place - kept[-1].place > LETTER * (len(tick.label) + len(kept[-1].label)) / 2 + LETTER
        ):
            kept.append(tick)
    return kept


def _laid_out(
    title: str, series: Sequence[Series], x_range: Point, x_ticks: Mapping[float, str], from_zero: bool
) -> Chart:
    """A chart whose horizontal axis is given: its range, and labels by their places."""
    finite = [Series(s.name, [p for p in s.points if math.isfinite(p[1])]) for s in series]
    numbers = [number for number, s in enumerate(finite) if s.points]
    shown = [Series(finite[number].name, thinned(finite[number].points)) for number in numbers]
    values = [value for s in shown for _, value in s.points]
    x_low, x_high = x_range
    y_marks = list(marks(*spread(0.0 if from_zero else min(values), max(values)), 5, around=True))
    y_low, y_high = y_marks[0], y_marks[-1]

    def x(step: float) -> float:
        return LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    return Chart(
        title=title,
        curves=[
            curve(s, number, [(x(step), y(value)) for step, value in s.points])
            for number, s in zip(numbers, shown, strict=True)
        ],
        x_ticks=[Tick(x(mark), text) for mark, text in x_ticks.items()],
        y_ticks=[Tick(y(mark), label(mark)) for mark in y_marks],
    )


def curve(series: Series, number: int, places: list[Point]) -> Curve:
    """A series, the how-manieth it is, and its places in the chart."""
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    points = [
        (step, value, round(x, 1), round(y, 1))
        for (step, value), (x, y) in zip(series.points, places, strict=True)
    ]
    return Curve(series.name, number, path, places if len(places) <= 40 else [], points)


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most about `most` points that look the same: of each stretch the first, the lowest, the highest, the last."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 4))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        by_value = sorted(stretch, key=lambda point: point[1])
        kept += sorted({stretch[0], by_value[0], by_value[-1], stretch[-1]})
    return kept


def spread(low: float, high: float) -> Point:
    """A range that isn't empty."""
    if low < high:
        return low, high
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin


def marks(low: float, high: float, about: int, around: bool = False) -> Iterator[float]:
    """About so many round numbers, multiples of 1, 2 or 5 times a power of ten: within a range, or around it."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    slack = 1e-9 if around else -1e-9
    first, last = low / step + slack, high / step - slack
    digits = max(0, 2 - math.floor(math.log10(step)))
    inner = range(math.ceil(first), math.floor(last) + 1)
    for multiple in range(math.floor(first), math.ceil(last) + 1) if around else inner:
        yield round(multiple * step, digits)


def label(number: float) -> str:
    """A number for an axis, such as 0.25, 1.5k or 1e-4."""
    if number and abs(number) < 1e-3:
        return f"{number:.2g}".replace("e-0", "e-")
    for limit, unit in UNITS:
        if abs(number) >= limit:
            return f"{number / limit:.4g}{unit}"
    return f"{number:.4g}"
