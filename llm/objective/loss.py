"""The value that every objective returns."""

from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """A batch's score: the summed loss in nats and the number of targets that it is summed over."""

    total: Tensor
    n_targets: Tensor

    @property
    def mean(self) -> Tensor:
        """Nats per target, a scalar."""
        return self.total / self.n_targets
