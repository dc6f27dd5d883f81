"""Samples of their own lengths: each once an epoch while training, and once while scoring.

Shapes: n samples.
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np

from llm.data.sampling.order import EpochOrder

Sample = TypeVar("Sample")


class Epochs(ABC, Generic[Sample]):
    """Base of what cuts a stream into `size` samples that come in an order of each epoch's own, which `seed` decides."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.order = EpochOrder(size, seed)

    @property
    def n_held_out(self) -> int:
        """Every sample once."""
        return self.size

    def training(self, numbers: np.ndarray) -> list[Sample]:
        """The training samples of these numbers (n,)."""
        return self.held_out(self.order.shuffled(numbers))

    @abstractmethod
    def held_out(self, numbers: np.ndarray) -> list[Sample]:
        """The samples for scoring of these numbers (n,); -1 is one of nothing."""
