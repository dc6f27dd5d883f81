"""The squared error of a number that is predicted for a text.

Shapes: b batch, k scored positions, l labels, of which a number has one.
"""

import torch
from torch import nn

from llm.data.collators.base import Batch
from llm.objective.loss import Loss


class SquaredError:
    """The squared error, in variances of the training text's numbers, summed over all targets that are numbers."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Score `batch` by `model`, whose call gives numbers (b, k, 1)."""
        predicted_bk = model(batch.tokens_bt, **batch.inputs())[..., 0].float()
        is_scored_bk = ~batch.targets_bk.isnan()
        error_bk = predicted_bk - torch.where(is_scored_bk, batch.targets_bk, predicted_bk.detach()).float()
        std: float = model.config.number_std  # type: ignore[union-attr, assignment]
        return Loss((error_bk / std).square().sum(), is_scored_bk.sum(), batch.divisor)
