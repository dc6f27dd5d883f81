"""Windows of a stream: samples of a fixed length, in exact order while training, side by side while scoring.

Shapes: n samples, t time.
"""

import numpy as np

from llm.data.corpus import TokenStream
from llm.data.sampling.order import SampleOrder
from llm.data.sampling.view import SampleView

# A target that is not scored; in a window, a position past the end of the text.
IGNORED = -100


class Windows(SampleView):
    """A stream as windows of `length` inputs and one token more."""

    def __init__(self, stream: TokenStream, length: int, seed: int) -> None:
        self.stream, self.length = stream, length
        self.order = SampleOrder(len(stream), length, seed)

    @property
    def size(self) -> int:
        """Windows in one pass over the stream."""
        return max(self.order.size, 0)

    def training(self, indices: np.ndarray) -> np.ndarray:
        """The windows (n, t + 1) that are the training samples of these indices (n,)."""
        return self.stream.read(self.order.starts(indices), self.length + 1)

    def n_targets(self, indices: np.ndarray) -> np.ndarray | None:
        """As many in each."""
        return None

    @property
    def note(self) -> str:
        """Nothing: a window is as long as the context."""
        return ""

    @property
    def n_in_order(self) -> int:
        """How many windows, side by side, make each token but the first a target once."""
        return -(-(len(self.stream) - 1) // self.length)

    def in_order(self, indices: np.ndarray) -> np.ndarray:
        """The windows (n, t + 1) of these indices (n,), `IGNORED` past the end of the stream; -1 is one of nothing."""
        starts = np.where(indices < 0, len(self.stream), indices * self.length)
        return self.stream.read_padded(starts, self.length + 1, IGNORED)
