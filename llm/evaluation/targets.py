"""How well a model writes the targets of its task, given what stands before each token of them.

Shapes: b batch, k targets in a row, v vocabulary.
"""

import numpy as np
import torch
import torch.nn.functional as F

from llm.data.collators.base import Collator
from llm.data.corpus import TokenStream
from llm.data.sampling.windows import IGNORED
from llm.errors import DataError
from llm.evaluation.perplexity import text_scores
from llm.generation.mode import inference
from llm.model import Transformer
from llm.tokenizer import Tokenizer


def score_targets(
    model: Transformer,
    stream: TokenStream,
    collate: Collator,
    tokenizer: Tokenizer,
    *,
    seed: int,
    batch_size: int = 16,
) -> dict[str, float]:
    """Return loss, perplexity, bits_per_byte, tokens and bytes of the targets that `collate` makes of a stream.

    `loss` is the mean in nats over all targets, sentinels and ends of text among them; `bits_per_byte` is their sum
    over ln 2 and over the bytes of the targets' text alone. What is hidden follows from `seed` where the task hides
    anything. Raises DataError where there is no target.
    """
    view = collate.samples(stream, model.config.context_length, seed)
    device = next(model.parameters()).device
    nll, tokens, n_bytes = torch.zeros((), dtype=torch.float64), 0, 0
    for first in range(0, view.n_in_order, batch_size):
        indices = np.arange(first, min(first + batch_size, view.n_in_order))
        batch = collate(view.in_order(indices), indices)
        batch = batch.to(device)
        with inference(model):
            logits_bkv = model(batch.tokens_bt, **batch.inputs())
            scored_bk = batch.targets_bk != IGNORED
            targets_k = batch.targets_bk[scored_bk]
            losses_k = F.cross_entropy(logits_bkv[scored_bk].float(), targets_k, reduction="none")
            nll += losses_k.double().sum().cpu()
        tokens += len(targets_k)
        n_bytes += len(tokenizer.decode_bytes(targets_k.tolist()))
    if not n_bytes:
        raise DataError("There is nothing to score: the held-out text gives no target.")
    return text_scores(nll.item(), tokens, n_bytes)
