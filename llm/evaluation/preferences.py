"""How well a model tells better answers from worse ones, beside the model that it started from.

Shapes: n preferences of a stream, b batch.
"""

import numpy as np
import torch

from llm.data.collators.base import Collator
from llm.data.collators.pairs import padded_length
from llm.data.collators.preferences import PreferenceCollator
from llm.data.corpus import TokenStream
from llm.errors import ConfigError, DataError
from llm.evaluation.examples import text_id
from llm.evaluation.result import Result, Row, figures_of
from llm.generation.mode import inference
from llm.model import Transformer
from llm.objective.preference import PreferenceLoss, answer_scores
from llm.tokenizer import Tokenizer

# Inputs that are read at once where no gradients are kept: a CPU's caches hold little, and an accelerator wants much.
CPU_TOKENS, ACCELERATOR_TOKENS = 1 << 13, 1 << 17


def reference_scores(
    model: Transformer, stream: TokenStream, collate: Collator, *, tokens: int | None = None
) -> np.ndarray:
    """The log-probabilities (n, 2) of better and worse answers; 0 for those that are left out.

    The longest are read first, and those of like length together, as many as come to `tokens` inputs (None: as suits the
    device); half as many and so on where its memory is too small.

    Raises:
        ConfigError: the collator makes no preferences.
    """
    if not isinstance(collate, PreferenceCollator):
        raise ConfigError(
            f"task.collator: {type(collate).__name__} makes no preferences; PreferenceCollator does."
        )
    view = collate.samples(stream, model.config.context_length, 0)
    device = next(model.parameters()).device
    budget = tokens or (CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS)
    longest_n = view.lengths.max(axis=1, initial=1)
    places = np.argsort(-longest_n, kind="stable")
    scores_n2 = np.zeros((stream.n_documents, 2), np.float32)
    while len(places):
        longest = padded_length([range(longest_n[places[0]])], model.config.context_length)
        n_rows = max(1, budget // (2 * longest))
        some, rest = places[:n_rows], places[n_rows:]
        try:
            with inference(model):
                scores_b2 = answer_scores(model, collate(view.in_order(some), some).to(device))[0]
        except torch.OutOfMemoryError:
            if len(some) == 1:
                raise
            torch.cuda.empty_cache()
            budget = len(some) * longest
            continue
        scores_n2[view.indices[some]] = scores_b2.cpu().numpy()
        places = rest
    return scores_n2


def score_preferences(
    model: Transformer,
    stream: TokenStream,
    collate: PreferenceCollator,
    tokenizer: Tokenizer,
    objective: PreferenceLoss,
    *,
    batch_size: int = 8,
) -> Result:
    """loss, reward_accuracy and reward_margin over all preferences of a stream, each an example."""
    rows: list[Row] = []
    view = collate.samples(stream, model.config.context_length, 0)
    device = next(model.parameters()).device
    for first in range(0, view.n_in_order, batch_size):
        places = np.arange(first, min(first + batch_size, view.n_in_order))
        batch = collate(view.in_order(places), places).to(device)
        with inference(model):
            margins_b = objective.margins(model, batch)[0].double().cpu()
        losses = objective.losses(margins_b).tolist()
        indices = view.indices[places].tolist()
        for index, margin, loss in zip(indices, margins_b.tolist(), losses, strict=True):
            better, worse = (tokenizer.decode(side.ids_t.tolist()) for side in view.sides(index))
            scores = {"loss": loss, "reward_accuracy": float(margin > 0), "reward_margin": margin}
            rows.append(
                {
                    "id": text_id(f"{better}\n{worse}"),
                    "better": better,
                    "worse": worse,
                    "scores": {name: [value, 1.0] for name, value in scores.items()},
                }
            )
    if not rows:
        raise DataError("There is nothing to score: no preference is held out.")
    return Result(figures_of(rows), len(rows), rows)
