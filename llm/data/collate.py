"""Windows of tokens to batches of inputs and targets.

Shapes: b batch, t time, k targets in a row.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from llm.tokenizer import Tokenizer

# A target that is not scored; in a window, a position past the end of the text.
IGNORED = -100


class Batch(NamedTuple):
    """What a model reads and what it is scored by, all int64.

    Args:
        tokens_bt: the inputs.
        targets_bk: the tokens to predict, `IGNORED` where there is none.
        ids: the index of each sample (b,) in the order of training (-1: filled up).
        documents_bt: the document of each input, llm.model.mask.PADDING for none; None where a row is one document.
        positions_bk: where the targets stand; None where each input has one.
    """

    tokens_bt: Tensor
    targets_bk: Tensor
    ids: Tensor
    documents_bt: Tensor | None = None
    positions_bk: Tensor | None = None

    def inputs(self) -> dict[str, Any]:
        """The arguments of the model beside the tokens."""
        return {"documents_bt": self.documents_bt, "positions_bk": self.positions_bk}


@dataclass(frozen=True)
class Setting:
    """What a collator is told of the run that it works for."""

    tokenizer: Tokenizer
    seed: int


class Collator(Protocol):
    """Makes a batch of windows (b, t + 1), int64 and `IGNORED` past the end of the text, and sample indices (b,)."""

    @property
    def share(self) -> float:
        """The share of the inputs that have a target."""

    def __call__(self, windows: np.ndarray, ids: np.ndarray) -> Batch:
        """The batch."""
        ...


class CausalCollator:
    """Each token's target is the token after it.

    Args:
        setting: of no use here.
    """

    # The share of the inputs that have a target.
    share = 1.0

    def __init__(self, setting: Setting | None = None) -> None:
        pass

    def __call__(self, windows: np.ndarray, ids: np.ndarray) -> Batch:
        """The batch, both tensors views of `windows` where nothing is past the end of the text."""
        tokens = windows[:, :-1]
        if (windows[:, -1] == IGNORED).any():
            tokens = np.where(tokens == IGNORED, 0, tokens)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(windows[:, 1:]), torch.from_numpy(ids))
