"""Cross-entropy of tokens: the objective of GPT, BERT and T5 alike, which differ in what a target is.

Shapes: b batch, t time, k targets in a row, v vocabulary.
"""

from torch import nn
from torch.nn import functional as F

from llm.data.collate import Batch
from llm.data.windows import IGNORED
from llm.objective.loss import Loss, Rows


class CrossEntropy:
    """Cross-entropy in nats over all targets that are not `IGNORED`.

    Args:
        label_smoothing: the share of each target, in training, that is spread over the vocabulary (arXiv 1512.00567).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Score `batch` by `model`, whose call gives logits (b, k, v)."""
        logits_bkv = model(batch.tokens_bt, **batch.inputs())
        targets_bk = batch.targets_bk
        nats_bk = F.cross_entropy(
            logits_bkv.reshape(targets_bk.numel(), -1).float(),
            targets_bk.reshape(-1),
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=self.label_smoothing if model.training else 0.0,
        ).view_as(targets_bk)
        rows = Rows(nats_bk.sum(1), (targets_bk != IGNORED).sum(1))
        return Loss(rows.nats_b.sum(), rows.targets_b.sum(), batch.divisor, rows)
