"""The edges of an answer: cross-entropy of where it starts and where it ends, over the positions of a passage.

Shapes: b batch, k scored positions, e edges.
"""

from torch import nn
from torch.nn import functional as F

from llm.data.collators.base import Batch
from llm.data.collators.questions import END, START
from llm.data.sampling.windows import IGNORED
from llm.objective.loss import Loss


class AnswerCrossEntropy:
    """The mean of both edges' cross-entropy in nats, summed over the rows that have targets (arXiv 1810.04805)."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Score `batch` by `model`, whose call gives scores (b, k, e) of the edges."""
        targets_bk = batch.targets_bk
        is_scored_bk = targets_bk != IGNORED
        scores_bke = model(batch.tokens_bt, **batch.inputs()).float()
        scores_bke = scores_bke.masked_fill(~is_scored_bk[..., None], -1e9)
        has_target_b = is_scored_bk.any(1)
        total = scores_bke.new_zeros(())
        for number, edge in enumerate((START, END)):
            place_b = ((targets_bk & edge > 0) & is_scored_bk).int().argmax(1)
            nats_b = F.cross_entropy(scores_bke[..., number], place_b, reduction="none")
            total = total + (nats_b * has_target_b).sum() / 2
        return Loss(total, has_target_b.sum(), batch.divisor)
