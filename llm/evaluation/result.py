"""What an evaluation gives: figures, how many examples they are of, and what it found of each example."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# An example: its `id` (the same for every model), its `scores`, by metric what it adds to the numerator and to the
# denominator of the figure, and whatever helps a reader.
Row = dict[str, Any]


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
