"""What an evaluation gives: figures, how many examples they are of, and what it found of each example."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# An example: its `id` (the same for every model), its `scores`, by metric what it adds to the numerator and to the
# denominator of the figure, and whatever helps a reader.
Row = dict[str, Any]


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """The metrics that every example has a score of."""
    return [name for name in rows[0]["scores"] if all(name in row["scores"] for row in rows)] if rows else []


def scores_of(rows: Sequence[Row], metric: str) -> np.ndarray:
    """What each example adds to a metric's numerator and denominator (n, 2)."""
    return np.array([row["scores"][metric] for row in rows], float)


def figure(sums_2: np.ndarray) -> np.ndarray:
    """What sums of scores (..., 2) come to; 0 where nothing is to be divided by."""
    numerator, denominator = sums_2[..., 0], sums_2[..., 1]
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def figures_of(rows: Sequence[Row]) -> dict[str, float]:
    """The figures that the scores of examples add up to."""
    return {metric: float(figure(scores_of(rows, metric).sum(0))) for metric in metrics_of(rows)}


@dataclass(frozen=True)
class Result:
    """Figures by name, and how many examples they are of.

    Args:
        metrics: the figures.
        examples: how many.
        rows: the examples, where the evaluation tells of each.
        details: what else evaluation.json is to hold, such as a confusion matrix; plain values.
    """

    metrics: dict[str, float]
    examples: int
    rows: Sequence[Row] = ()
    details: dict[str, Any] = field(default_factory=dict)
