"""Cross-entropy of tokens: the objective of GPT, BERT and T5 alike, which differ in what a target is.

Shapes: b batch, t time, k targets in a row, v classes: the vocabulary, or the labels.
"""

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from llm.bounds import NotNegative, Share
from llm.data.collators.base import Batch
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.objective.loss import Loss, Rows


class CrossEntropy:
    """Cross-entropy in nats over all targets that are not `IGNORED`.

    Args:
        label_smoothing: the share of each target, in training, that is spread over the vocabulary (arXiv 1512.00567).
    """

    def __init__(self, label_smoothing: Share = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Score `batch` by `model`, whose call gives logits (b, k, v)."""
        logits_bkv = model(batch.tokens_bt, **batch.inputs())
        targets_bk = batch.targets_bk
        nats_bk = F.cross_entropy(
            logits_bkv.reshape(targets_bk.numel(), -1).float(),
            targets_bk.reshape(-1),
            weight=self.class_weights(model, logits_bkv),
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=self.label_smoothing if model.training else 0.0,
        ).view_as(targets_bk)
        rows = Rows(nats_bk.sum(1), (targets_bk != IGNORED).sum(1))
        return Loss(rows.nats_b.sum(), rows.targets_b.sum(), batch.divisor, rows)

    def class_weights(self, model: nn.Module, logits_bkv: Tensor) -> Tensor | None:
        """What each target's loss is multiplied by, by its class (v,); None for all alike."""
        return None


class LabelCrossEntropy(CrossEntropy):
    """Cross-entropy of labels, where some may count more than others.

    Each target's loss is multiplied by its label's weight; the mean is still over the number of targets, not over the sum of
    their weights as torch's weighted mean is. Weights of 2 for all labels so double the loss and its gradients.

    Args:
        label_smoothing: as for `CrossEntropy`.
        label_weights: what a target's loss is multiplied by, by its label; 1 where it isn't named.
    """

    def __init__(
        self, label_smoothing: Share = 0.0, label_weights: Mapping[str, NotNegative] | None = None
    ) -> None:
        super().__init__(label_smoothing)
        self.label_weights = {str(label): weight for label, weight in (label_weights or {}).items()}
        if wrong := [name for name, weight in self.label_weights.items() if not weight >= 0]:
            raise ConfigError(f"task.objective.label_weights: {wrong} must be at least 0.")

    def check_labels(self, labels: Collection[str]) -> None:
        """Raise ConfigError where a label that was given a weight is none of the model's."""
        if unknown := self.label_weights.keys() - set(labels):
            raise ConfigError(
                f"task.objective.label_weights: there is no label {', '.join(sorted(unknown))}, only {', '.join(labels)}."
            )

    def class_weights(self, model: nn.Module, logits_bkv: Tensor) -> Tensor | None:
        """The weight of each label (v,); None for all alike."""
        if not self.label_weights:
            return None
        labels: tuple[str, ...] = model.config.labels  # type: ignore[union-attr, assignment]
        return logits_bkv.new_tensor([self.label_weights.get(label, 1.0) for label in labels]).float()
