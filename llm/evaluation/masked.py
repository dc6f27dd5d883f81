"""How well an encoder predicts hidden tokens: each token of a stream is hidden once, some at a time.

Shapes: n windows, t time, k hidden positions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llm.data import TokenStream
from llm.errors import DataError
from llm.evaluation.perplexity import perplexity
from llm.generation.mode import inference
from llm.model import Transformer
from llm.model.mask import PADDING

# Every so many tokens one is hidden: about the share that BERT trains with.
EVERY = 7


class Hidden(NamedTuple):
    """The ids that mean something."""

    mask: int
    end_of_text: int


def score_masked(
    model: Transformer,
    stream: TokenStream,
    ids: Hidden,
    *,
    batch_size: int = 16,
    each: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> dict[str, float]:
    """Hide every token but ends of text once, and return loss, pseudo_perplexity, masked_accuracy, tokens.

    Windows of the model's context lie side by side; each is read seven times, every seventh token hidden, another
    one each time. `loss` is the mean in nats, `pseudo_perplexity` its exponential: near that of arXiv 1910.14659,
    which hides one token at a time. `each` is called with the positions (k,) of hidden tokens in the stream and what
    each costs in nats, (k,) float64. Raises DataError where there is no token.
    """
    length = model.config.context_length
    total, correct, count = torch.zeros((), dtype=torch.float64), 0, 0
    starts = np.arange(0, len(stream), length)
    for first in range(0, len(starts), batch_size):
        window_nt = torch.from_numpy(stream.read_padded(starts[first : first + batch_size], length, PADDING))
        window_nt = window_nt.to(next(model.parameters()).device)
        documents_nt = (window_nt == ids.end_of_text).cumsum(1).masked_fill(window_nt == PADDING, PADDING)
        for turn in range(EVERY):
            scored_nk, targets_k, logits_kv = _predicted(model, window_nt, documents_nt, ids, turn)
            nll_k = F.cross_entropy(logits_kv, targets_k, reduction="none").double().cpu()
            total += nll_k.sum()
            if each is not None:
                places_nk = starts[first : first + batch_size, None] + np.arange(turn, length, EVERY)
                each(places_nk[scored_nk.cpu().numpy()], nll_k.numpy())
            correct += int((logits_kv.argmax(-1) == targets_k).sum())
            count += len(targets_k)
    if not count:
        raise DataError("There is nothing to score: the held-out text has no tokens.")
    loss = total.item() / count
    return {
        "loss": loss,
        "pseudo_perplexity": perplexity(loss),
        "masked_accuracy": correct / count,
        "tokens": count,
    }


def _predicted(
    model: Transformer, window_nt: Tensor, documents_nt: Tensor, ids: Hidden, turn: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Where (n, k) something was hidden this turn, what, and the scores that the model gives for it."""
    length = window_nt.shape[1]
    positions_k = torch.arange(turn, length, EVERY, device=window_nt.device)
    targets_nk = window_nt[:, positions_k]
    scored_nk = (targets_nk != PADDING) & (targets_nk != ids.end_of_text)
    shown_nt = window_nt.masked_fill(window_nt == PADDING, ids.end_of_text)
    shown_nt[:, positions_k] = torch.where(scored_nk, ids.mask, shown_nt[:, positions_k])
    with inference(model):
        where_nk = positions_k.expand(len(window_nt), -1)
        logits_nkv = model(shown_nt, documents_bt=documents_nt, positions_bk=where_nk)
        return scored_nk, targets_nk[scored_nk], logits_nkv[scored_nk].float()
