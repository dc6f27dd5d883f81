"""How well a model tells what texts are: their labels, or their numbers."""

# Shape legend: n texts, l labels.

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional import mean_squared_error, pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from llm.data.collate import Collator
from llm.data.shards import TokenStream
from llm.errors import DataError
from llm.generation.mode import inference
from llm.model import Transformer


def score_labels(
    model: Transformer, stream: TokenStream, collate: Collator, *, batch_size: int = 16
) -> tuple[dict[str, float], int]:
    """Return figures of how all texts of a stream are told apart, and how many texts there are.

    loss in nats, accuracy, macro_f1 (the mean over the labels), majority (the accuracy of always saying the commonest
    label) and calibration_error (expected, over 15 bins: arXiv 1706.04599). Raises DataError where there is no text.
    """
    logits_nl, targets_n = _told(model, stream, collate, batch_size)
    n_labels = len(model.config.labels)
    return {
        "loss": torch.nn.functional.cross_entropy(logits_nl, targets_n).item(),
        "accuracy": multiclass_accuracy(logits_nl, targets_n, average="micro", num_classes=n_labels).item(),
        "macro_f1": multiclass_f1_score(logits_nl, targets_n, average="macro", num_classes=n_labels).item(),
        "majority": targets_n.bincount(minlength=n_labels).max().item() / len(targets_n),
        "calibration_error": multiclass_calibration_error(logits_nl, targets_n, num_classes=n_labels).item(),
    }, len(targets_n)


def score_numbers(
    model: Transformer, stream: TokenStream, collate: Collator, *, batch_size: int = 16
) -> tuple[dict[str, float], int]:
    """Return figures of the numbers that are told of all texts of a stream, and how many texts there are.

    mse, pearson and spearman (NaN where all are told the same), and mean_mse: that of always saying the training text's
    mean. Raises DataError where there is no text.
    """
    scores_n1, targets_n = _told(model, stream, collate, batch_size)
    told_n, targets_n = scores_n1[:, 0], targets_n.float()
    mean_n = torch.full_like(targets_n, model.config.number_mean)
    return {
        "mse": mean_squared_error(told_n, targets_n).item(),
        "pearson": pearson_corrcoef(told_n, targets_n).item(),
        "spearman": spearman_corrcoef(told_n, targets_n).item(),
        "mean_mse": mean_squared_error(mean_n, targets_n).item(),
    }, len(targets_n)


def _told(
    model: Transformer, stream: TokenStream, collate: Collator, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The scores of every text, on the CPU in float32, and its label's number."""
    view = collate.view(stream, model.config.context_length, 0)
    device = next(model.parameters()).device
    logits, targets = [], []
    for first in range(0, view.n_held_out, batch_size):
        numbers = np.arange(first, min(first + batch_size, view.n_held_out))
        batch = collate(view.held_out(numbers), numbers).to(device)
        with inference(model):
            logits_b1l = model(batch.tokens_bt, **batch.inputs())
        logits.append(logits_b1l[:, 0].float().cpu())
        targets.append(batch.targets_bk[:, 0].cpu())
    if not targets:
        raise DataError("There is nothing to score: no text is held out.")
    return torch.cat(logits), torch.cat(targets)
