"""The loss of a model over every token of a stream: mean, perplexity, bits per byte.

Shapes: n windows, t time, d width, k predictions, v vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llm.errors import ConfigError, DataError
from llm.generation.mode import inference
from llm.model import Transformer

# Predictions whose logits are held at once: bounds memory where the vocabulary is large.
_LOGIT_ROWS = 2048


class Stream(Protocol):
    """Documents end to end as ids, each preceded by the end-of-text token."""

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of all documents, end-of-text tokens not counted."""

    def __len__(self) -> int:
        """How many ids."""

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The ids (n, length), int64, that begin at `starts`."""


def score_stream(
    model: Transformer,
    stream: Stream,
    *,
    batch_size: int = 16,
    context_length: int | None = None,
    each: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> dict[str, float]:
    """Score every token but the first, each once, and return loss, perplexity, bits_per_byte, tokens, bytes.

    The stream is cut into windows of `context_length` inputs (by default the model's), each read without
    what stood before it, the last as short as it comes. The negative log-likelihoods, computed in float32,
    are added up in float64. `loss` is their mean in nats over `tokens` predictions; those of the end-of-text
    token between documents count in it. `bits_per_byte` is their sum over ln 2 and over the bytes of text
    alone: what an arithmetic coder with this model would make of the documents and of where each ends.
    `each` is called with the positions (k,) of predicted tokens in the stream and what each costs in nats, (k,) float64.
    Raises DataError on fewer than two tokens, ConfigError on a context longer than the model's.
    """
    context_length = _context_length(model, context_length)
    total = len(stream) - 1
    if total < 1 or stream.n_bytes < 1:
        raise DataError(f"There is nothing to score: {len(stream)} tokens of {stream.n_bytes} bytes.")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: it must be at least 1.")
    nll = torch.zeros((), dtype=torch.float64)
    done = 0
    for windows_nt in _windows(stream, total, context_length, batch_size):
        nll_k = _nll(model, torch.from_numpy(windows_nt))
        nll += nll_k.sum()
        if each is not None:
            # The windows lie side by side, so that their targets do too.
            each(np.arange(done + 1, done + 1 + len(nll_k)), nll_k.numpy())
        done += len(nll_k)
    return text_scores(nll.item(), total, stream.n_bytes)


def _context_length(model: Transformer, wanted: int | None) -> int:
    longest = model.config.context_length
    if wanted is not None and not 1 <= wanted <= longest:
        raise ConfigError(f"context_length={wanted}: the model allows 1 to {longest}.")
    return wanted or longest


def _windows(stream: Stream, total: int, length: int, batch_size: int) -> Iterator[np.ndarray]:
    """Batches (n, t + 1) of ids whose last t are the targets; the last batch may be shorter both ways."""
    starts = np.arange(total // length) * length
    for first in range(0, len(starts), batch_size):
        yield stream.read(starts[first : first + batch_size], length + 1)
    if rest := total % length:
        yield stream.read(np.array([total - rest]), rest + 1)


def _nll(model: Transformer, windows_nt: Tensor) -> Tensor:
    """The negative log-likelihoods (k,) of a batch's targets, float64 on the CPU."""
    windows_nt = windows_nt.to(next(model.parameters()).device)
    with inference(model):
        hidden_kd = model.hidden_states(windows_nt[:, :-1]).flatten(0, 1)
        targets_k = windows_nt[:, 1:].flatten()
        parts = zip(hidden_kd.split(_LOGIT_ROWS), targets_k.split(_LOGIT_ROWS), strict=True)
        each = [
            F.cross_entropy(model.head(part_kd).float(), part_k, reduction="none")
            for part_kd, part_k in parts
        ]
        return torch.cat(each).double().cpu()


def perplexity(loss: float) -> float:
    """The perplexity at a loss in nats a token; infinite where a float can't hold it."""
    return math.exp(loss) if loss < 700 else math.inf


def text_scores(nll: float, tokens: int, n_bytes: int) -> dict[str, float]:
    """What `nll` nats for so many tokens, which are so many bytes of text, come to."""
    loss = nll / tokens
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_byte": nll / math.log(2) / n_bytes,
        "tokens": tokens,
        "bytes": n_bytes,
    }
