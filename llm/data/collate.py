"""Windows of tokens to batches of inputs and targets.

Shapes: b batch, t time.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

# A target that is not scored; in a window, a position past the end of the text.
IGNORED = -100


class Batch(NamedTuple):
    """Inputs and targets, int64 (b, t), and the index of each sample in the order of training (-1: filled up)."""

    tokens_bt: Tensor
    targets_bt: Tensor
    ids: Tensor


class Collator(Protocol):
    """Makes a batch of windows (b, t + 1), int64 and `IGNORED` past the end of the text, and sample indices (b,)."""

    def __call__(self, windows: np.ndarray, ids: np.ndarray) -> Batch:
        """The batch."""
        ...


class CausalCollator:
    """Each token's target is the token after it."""

    def __call__(self, windows: np.ndarray, ids: np.ndarray) -> Batch:
        """The batch, both tensors views of `windows` where nothing is past the end of the text."""
        tokens = windows[:, :-1]
        if (windows[:, -1] == IGNORED).any():
            tokens = np.where(tokens == IGNORED, 0, tokens)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(windows[:, 1:]), torch.from_numpy(ids))
