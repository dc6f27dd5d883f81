"""The page of evaluations: figures with their intervals, models beside one another, and how labels were predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm.files import write_atomically
from llm.pages import render_page
from llm.report.charts import Chart, Series, chart

TEMPLATE = Path(__file__).with_suffix(".html.j2")


@dataclass(frozen=True)
class Figure:
    """A figure of one model, with the interval that it lies in, where that is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Pair:
    """How two models differ in a metric: the first less the second, its interval, and how likely that is by chance."""

    metric: str
    one: str
    other: str
    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Board:
    """One evaluation of several models.

    Args:
        title: which, and on what.
        models: what they are called.
        figures: by metric, one a model; None where a model has no such metric.
        pairs: how models that were asked the same examples differ.
        entries: the entries of evaluation.json, a model each.
        notes: what a reader has to know.
    """

    title: str
    models: Sequence[str]
    figures: dict[str, list[Figure | None]]
    pairs: Sequence[Pair] = ()
    entries: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()


def write_scores(boards: Sequence[Board], path: Path) -> Path:
    """Write the page, and return its path."""
    shown = [(board, reliability_chart(board), confusions(board)) for board in boards]
    write_atomically(path, render_page(TEMPLATE, boards=shown))
    return path


def reliability_chart(board: Board) -> Chart | None:
    """How often each model was right by how sure it was, beside the diagonal; None where none says so."""
    series = [
        Series(name, [(bin["confidence"], bin["accuracy"]) for bin in entry.get("reliability", [])])
        for name, entry in zip(board.models, board.entries, strict=True)
    ]
    if not any(one.points for one in series):
        return None
    least = min(point[0] for one in series for point in one.points)
    diagonal = Series("as sure as right", [(least, least), (1.0, 1.0)])
    return chart("Share that is right", [*series, diagonal], from_zero=True, whole=False)


def confusions(board: Board) -> list[tuple[str, list[str], list[list[int]]]]:
    """Each model's labels and how often each was predicted as each."""
    return [
        (name, entry["labels"], entry["confusion"])
        for name, entry in zip(board.models, board.entries, strict=True)
        if "confusion" in entry
    ]
