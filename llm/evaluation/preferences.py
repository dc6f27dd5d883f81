"""How well a model tells better answers from worse ones, beside the model that it started from."""

# Shape legend: n preferences of a stream, b batch.

from collections.abc import Iterator

import numpy as np
import torch

from llm.data.collate import Batch, Collator
from llm.data.shards import TokenStream
from llm.errors import DataError
from llm.generation.mode import inference
from llm.model import Transformer
from llm.objective.preference import PreferenceLoss, answer_scores


def _batches(
    model: Transformer, stream: TokenStream, collate: Collator, batch_size: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """All preferences of a stream, with their numbers in it."""
    view = collate.view(stream, model.config.context_length, 0)
    device = next(model.parameters()).device
    for first in range(0, view.n_held_out, batch_size):
        places = np.arange(first, min(first + batch_size, view.n_held_out))
        yield view.numbers[places], collate(view.held_out(places), places).to(device)  # type: ignore[attr-defined]


def reference_scores(
    model: Transformer, stream: TokenStream, collate: Collator, *, batch_size: int = 8
) -> np.ndarray:
    """The log-probabilities (n, 2) of better and worse answers; 0 for those that are left out."""
    scores_n2 = np.zeros((stream.n_documents, 2), np.float32)
    for numbers, batch in _batches(model, stream, collate, batch_size):
        with inference(model):
            scores_n2[numbers] = answer_scores(model, batch)[0].cpu().numpy()
    return scores_n2


def score_preferences(
    model: Transformer,
    stream: TokenStream,
    collate: Collator,
    objective: PreferenceLoss,
    *,
    batch_size: int = 8,
) -> tuple[dict[str, float], int]:
    """Return loss, reward_accuracy and reward_margin over all preferences of a stream, and how many there are."""
    margins = []
    for _, batch in _batches(model, stream, collate, batch_size):
        with inference(model):
            margins.append(objective.margins(model, batch)[0].double().cpu())
    if not margins:
        raise DataError("There is nothing to score: no preference is held out.")
    margins_n = torch.cat(margins)
    return {
        "loss": objective.losses(margins_n).mean().item(),
        "reward_accuracy": (margins_n > 0).double().mean().item(),
        "reward_margin": margins_n.mean().item(),
    }, len(margins_n)
