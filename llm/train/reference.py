"""What a reference model, which training compares with, says of the answers that a model learns from.

Shapes: n preferences of a stream, b batch.
"""

import numpy as np
import torch

from llm.data.collators.base import Collator
from llm.data.collators.pairs import padded_length
from llm.data.collators.preferences import PreferenceCollator
from llm.data.corpus import TokenStream
from llm.errors import ConfigError
from llm.generation.mode import inference
from llm.model import Transformer
from llm.objective.preference import answer_scores

# Inputs that are read at once where no gradients are kept: a CPU's caches hold little, and an accelerator wants much.
CPU_TOKENS, ACCELERATOR_TOKENS = 1 << 13, 1 << 17


def reference_log_probabilities(
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
