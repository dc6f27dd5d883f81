"""Cross-entropy of tokens: the objective of GPT, BERT and T5 alike, which differ in what a target is.

Shapes: b batch, t time, k targets in a row, v vocabulary.
"""

from torch import nn
from torch.nn import functional as F

from llm.data.collate import Batch
from llm.data.windows import IGNORED
from llm.objective.loss import Loss


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
        targets = batch.targets_bk.reshape(-1)
        total = F.cross_entropy(
            logits_bkv.reshape(targets.numel(), -1).float(),
            targets,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing if model.training else 0.0,
        )
        return Loss(total, (targets != IGNORED).sum(), batch.divisor)
