"""A run of Weights & Biases that keeps what is logged to it."""

from typing import Any


class FakeRun:
    """Does with rows what W&B does: those below its own step are dropped."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.rows: dict[int, dict[str, Any]] = {}

    def log(self, figures: dict[str, Any], step: int) -> None:
        """Add figures to a row."""
        if step >= self.step:
            self.step = step
            self.rows.setdefault(step, {}).update(figures)

    def define_metric(self, *_: object, **__: object) -> None:
        """Nothing to define."""

    def finish(self, **_: object) -> None:
        """Nothing to send."""
