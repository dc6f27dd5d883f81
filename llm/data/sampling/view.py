"""What every way to cut a stream into samples gives: the samples of training, and each sample once.

Shapes: n samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from llm.errors import ConfigError
from llm.tokenizer import Tokenizer


class WeightedView(NamedTuple):
    """A view of one stream, and its weight in training beside the others'."""

    view: "SampleView"
    weight: float


class SampleView(ABC):
    """Base of a stream, or several, as samples that a collator takes.

    Training takes them from an endless sequence, in an order of each epoch's own. Scoring takes each of them once, in the
    order of the text.
    """

    # The names of the sources that the streams are of, where there are several.
    source_names: Sequence[str] = ()
    # The samples that training can take; None for no end, as of one stream.
    end: int | None = None

    @property
    @abstractmethod
    def size(self) -> int:
        """Samples in one pass over the stream."""

    @property
    @abstractmethod
    def n_in_order(self) -> int:
        """Samples that make each target of the stream one once."""

    @property
    @abstractmethod
    def note(self) -> str:
        """What became of that which is longer than the context, in a sentence; empty where all fits."""

    @abstractmethod
    def training(self, indices: np.ndarray) -> Any:
        """The training samples of these indices (n,), as the collator takes them."""

    @abstractmethod
    def in_order(self, indices: np.ndarray) -> Any:
        """The samples of these indices (n,) in the order of the text; -1 asks for one of nothing."""

    @abstractmethod
    def n_targets(self, indices: np.ndarray) -> np.ndarray | None:
        """The targets (n,) of the training samples of these indices (n,); None where all have as many."""

    @property
    def weighted_views(self) -> Sequence[WeightedView]:
        """The views of single streams that it is made of: itself alone."""
        return [WeightedView(self, 1.0)]

    def require(self, samples: int) -> None:
        """Raise ConfigError unless training can take so many samples."""
        if self.end is not None and samples > self.end:
            raise ConfigError(
                f"Every source of the mixture has epochs, which are over after {self.end:,} samples, and "
                f"trainer.max_steps times data.batch_size wants {samples:,}: leave one source without epochs."
            )

    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of training samples (n,) the index of the source (n,), and which of that source's own each is (n,)."""
        return np.zeros_like(indices), indices

    def place_in_order(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `place`, of samples in the order of the text; -1 stays -1."""
        return np.zeros_like(indices), indices

    def target_bytes(self, tokenizer: Tokenizer) -> float | None:
        """The UTF-8 bytes of a sample's scored tokens, on average; None where that is known of the whole text alone."""
        return None
