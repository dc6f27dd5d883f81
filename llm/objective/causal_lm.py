"""Next-token prediction, the objective of GPT and Llama.

Shapes: b batch, t time, v vocabulary.
"""

from torch import nn
from torch.nn import functional as F

from llm.data.collate import IGNORED, Batch
from llm.objective.loss import Loss


class CausalLM:
    """Cross-entropy of each next token, in nats, over all targets that are not `IGNORED`."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Score `batch` by `model`, whose call gives logits (b, t, v)."""
        logits_btv = model(batch.tokens_bt)
        targets = batch.targets_bt.reshape(-1)
        total = F.cross_entropy(
            logits_btv.reshape(targets.numel(), -1).float(), targets, ignore_index=IGNORED, reduction="sum"
        )
        return Loss(total, (targets != IGNORED).sum())
