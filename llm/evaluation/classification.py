"""How well a model predicts what texts are: their labels, or their numbers.

Shapes: n texts, l labels.
"""

import numpy as np
import torch
from torch import Tensor

from llm.data.collators.base import Collator
from llm.data.corpus import TokenStream
from llm.errors import DataError
from llm.evaluation.examples import number_rows, read_texts
from llm.evaluation.result import Result
from llm.generation.mode import inference
from llm.model import Transformer
from llm.tokenizer import Tokenizer

# Of predictions by how sure the model was.
BINS = 15


def label_figures(logits_nl: Tensor, targets_n: Tensor) -> dict[str, float]:
    """Figures of how texts are told apart.

    loss in nats, accuracy, macro_f1 (the mean over the labels), majority (the accuracy of always saying the commonest
    label) and calibration_error, see `calibration_error`.
    """
    # Imported where it is used, for it takes seconds with all that it brings (llm/light_imports.py).
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    n_labels = logits_nl.shape[1]
    return {
        "loss": torch.nn.functional.cross_entropy(logits_nl, targets_n).item(),
        "accuracy": multiclass_accuracy(logits_nl, targets_n, average="micro", num_classes=n_labels).item(),
        "macro_f1": multiclass_f1_score(logits_nl, targets_n, average="macro", num_classes=n_labels).item(),
        "majority": targets_n.bincount(minlength=n_labels).max().item() / len(targets_n),
        "calibration_error": calibration_error(reliability(logits_nl, targets_n)),
    }


def confusion(predicted_n: Tensor, targets_n: Tensor, n_labels: int) -> list[list[int]]:
    """How often each label (a row) was predicted as each (a column)."""
    cells = (targets_n * n_labels + predicted_n).bincount(minlength=n_labels**2)
    return cells.reshape(n_labels, n_labels).tolist()


def reliability(logits_nl: Tensor, targets_n: Tensor) -> list[dict[str, float]]:
    """By how sure the model was: bins of equal width, those with texts, each with its share that was right.

    The texts of a bin are those whose likeliest label has a probability of `least` or more, and less than `to`; in the
    last one it may be 1.
    """
    confidence_n, predicted_n = logits_nl.softmax(-1).max(-1)
    edges = torch.linspace(0, 1, BINS + 1)
    number_n = (torch.bucketize(confidence_n, edges, right=True) - 1).clamp(0, BINS - 1)
    bins = []
    for number in number_n.unique().tolist():
        inside_n = number_n == number
        bins.append(
            {
                "least": edges[number].item(),
                "to": edges[number + 1].item(),
                "texts": int(inside_n.sum()),
                "confidence": confidence_n[inside_n].mean().item(),
                "accuracy": (predicted_n == targets_n)[inside_n].float().mean().item(),
            }
        )
    return bins


def calibration_error(bins: list[dict[str, float]]) -> float:
    """How far, on average over the texts, a bin's share that was right is from how sure the model was there.

    The expected calibration error of arXiv 1706.04599, of the bins of `reliability`.
    """
    texts = sum(some["texts"] for some in bins)
    return sum(some["texts"] * abs(some["confidence"] - some["accuracy"]) for some in bins) / texts


def score_numbers(
    model: Transformer, stream: TokenStream, collate: Collator, tokenizer: Tokenizer, *, batch_size: int = 16
) -> Result:
    """How near the numbers are that are predicted for all texts of a stream; an example is a text.

    mse, pearson and spearman (NaN where all predictions are the same), and mean_mse: that of always saying the training text's
    mean. Raises DataError where there is no text.
    """
    from torchmetrics.functional import mean_squared_error, pearson_corrcoef, spearman_corrcoef

    scores_n1, targets_n = predicted_labels(model, stream, collate, batch_size)
    predicted_n, targets_n = scores_n1[:, 0], targets_n.float()
    mean_n = torch.full_like(targets_n, model.config.number_mean)
    return Result(
        {
            "mse": mean_squared_error(predicted_n, targets_n).item(),
            "pearson": pearson_corrcoef(predicted_n, targets_n).item(),
            "spearman": spearman_corrcoef(predicted_n, targets_n).item(),
            "mean_mse": mean_squared_error(mean_n, targets_n).item(),
        },
        len(targets_n),
        number_rows(read_texts(stream, collate, tokenizer), targets_n, predicted_n, mean_n),
    )


def predicted_labels(
    model: Transformer, stream: TokenStream, collate: Collator, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The scores (n, l) of every text of a stream, on the CPU in float32, and its label's number (n,).

    Raises:
        DataError: there is no text.
    """
    view = collate.samples(stream, model.config.context_length, 0)
    device = next(model.parameters()).device
    logits, targets = [], []
    for first in range(0, view.n_in_order, batch_size):
        indices = np.arange(first, min(first + batch_size, view.n_in_order))
        batch = collate(view.in_order(indices), indices).to(device)
        with inference(model):
            logits_b1l = model(batch.tokens_bt, **batch.inputs())
        logits.append(logits_b1l[:, 0].float().cpu())
        targets.append(batch.targets_bk[:, 0].cpu())
    if not targets:
        raise DataError("There is nothing to score: no text is held out.")
    return torch.cat(logits), torch.cat(targets)
