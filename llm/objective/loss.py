"""The value that every objective returns."""

from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """Of each row of a batch, the summed loss in nats and the number of its targets, (b,) each."""

    nats_b: Tensor
    targets_b: Tensor


class Loss(NamedTuple):
    """A batch's score: the summed loss in nats and the number of targets that it is summed over.

    `divisor` is what the batch says of itself, see `llm.data.collators.base.Batch`; `rows` is for those who ask whose loss it
    is, where an objective tells it.
    """

    total: Tensor
    n_targets: Tensor
    divisor: Tensor | None = None
    rows: Rows | None = None

    @property
    def mean(self) -> Tensor:
        """Nats per target, a scalar; of a step's micro-batches with divisors the mean is that of all its targets."""
        return self.total / (self.n_targets if self.divisor is None else self.divisor)
