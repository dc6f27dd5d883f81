"""Samples of their own lengths: each once an epoch while training, and once while scoring.

Shapes: n samples.
"""

from abc import abstractmethod
from typing import Generic, TypeVar

import numpy as np

from llm.data.sampling.order import EpochOrder
from llm.data.sampling.view import SampleView

Sample = TypeVar("Sample")


class Epochs(SampleView, Generic[Sample]):
    """Base of what cuts a stream into `size` samples that come in an order of each epoch's own, which `seed` decides."""

    def __init__(self, size: int, seed: int) -> None:
        self.order = EpochOrder(size, seed)

    @property
    def size(self) -> int:
        """Samples in an epoch."""
        return self.order.size

    @property
    def n_in_order(self) -> int:
        """Every sample once."""
        return self.size

    def training(self, indices: np.ndarray) -> list[Sample]:
        """The training samples of these indices (n,)."""
        return self.in_order(self.order.shuffled(indices))

    @abstractmethod
    def in_order(self, indices: np.ndarray) -> list[Sample]:
        """The samples of these indices (n,) in the order of the stream; -1 is one of nothing."""
