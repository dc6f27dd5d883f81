"""Prefixes: the beginning of a window is read on both sides, and a decoder writes what follows it.

Shapes: n samples, b batch, t time, k targets in a row.
"""

import dataclasses

import numpy as np
import torch

from llm.data.collators.base import Batch, Setting
from llm.data.collators.causal import CausalCollator
from llm.data.corpus import TokenStream
from llm.data.sampling.windows import IGNORED, Windows
from llm.model import ModelConfig
from llm.tokenizer import Tokenizer


def prefix_lengths(indices: np.ndarray, length: int, seed: int) -> np.ndarray:
    """How many of the `length` tokens of the samples of these indices (n,) are their prefixes (n,).

    They are 1 to all but the last, each as likely, and follow from the seed and the sample's index alone.
    """
    keys = (np.array([seed, index % (1 << 64)], np.uint64) for index in indices.tolist())
    draws = (np.random.Generator(np.random.Philox(key=key)).integers(1, max(length, 2)) for key in keys)
    return np.fromiter(draws, np.int64, len(indices))


class PrefixWindows(Windows):
    """Windows of which what follows the prefix is scored."""

    def __init__(self, stream: TokenStream, length: int, seed: int) -> None:
        super().__init__(stream, length, seed)
        self.seed = seed

    def n_targets(self, indices: np.ndarray) -> np.ndarray:
        """The tokens behind the prefixes (n,), the one after the window among them."""
        return self.length + 1 - prefix_lengths(indices, self.length, self.seed)


class PrefixCollator(CausalCollator):
    """Each token's target is the token after it; those of a prefix see each other, and are no targets (arXiv 1910.10683).

    Args:
        setting: the run's tokenizer, its seed and the model, which says how long windows are.
        within_documents: whether attention stays within a document; else a token sees all that stands before it.
    """

    # A prefix follows from the sample's index, which a mixture and the source that it is of count differently.
    mixes = False

    def __init__(self, setting: Setting, *, within_documents: bool = False) -> None:
        super().__init__(setting, within_documents=within_documents)
        self.seed = setting.seed

    def samples(self, stream: TokenStream, length: int, seed: int) -> PrefixWindows:
        """The windows of a stream, which know how many targets each has."""
        return PrefixWindows(stream, length, seed)

    @classmethod
    def shaped(cls, model_config: ModelConfig, stream: TokenStream, tokenizer: Tokenizer) -> ModelConfig:
        """`model_config` of a decoder that reads a prompt on both sides."""
        return dataclasses.replace(model_config, prefix_lm=True)

    def __call__(self, windows: np.ndarray, indices_b: np.ndarray) -> Batch:
        """The batch of the windows."""
        prefix_b = prefix_lengths(indices_b, windows.shape[1] - 1, self.seed)
        # The last token of a prefix foretells the first one behind it.
        is_predicted_bk = np.arange(1, windows.shape[1]) >= prefix_b[:, None]
        batch = super().__call__(windows, indices_b)
        return batch._replace(
            targets_bk=batch.targets_bk.where(torch.from_numpy(is_predicted_bk), IGNORED),
            prefix_b=torch.from_numpy(prefix_b),
        )
