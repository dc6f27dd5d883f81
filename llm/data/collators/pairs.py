"""Pairs of texts, a source and its target: samples of their own lengths, padded to a batch's longest.

Shapes: n pairs, b batch, s time of a source, k time of a target.
"""

from collections.abc import Sequence, Sized
from functools import cached_property
from typing import NamedTuple

import numpy as np

from llm.data.collators.base import Batch, Given, Setting, TokenCounts
from llm.data.collators.spans import filled, shifted
from llm.data.corpus import TokenStream
from llm.data.sampling.epochs import Epochs
from llm.data.sampling.windows import IGNORED
from llm.errors import DataError
from llm.model.mask import PADDING
from llm.tokenizer import start_token

# Lengths are padded up to multiples of this, so that a compiled model meets few shapes.
LENGTH_STEP = 32


class Pair(NamedTuple):
    """The ids of a source and of its target."""

    source_s: np.ndarray
    target_k: np.ndarray


NOTHING = Pair(np.zeros(0, np.int64), np.zeros(0, np.int64))


class Pairs(Epochs[Pair]):
    """A stream whose documents are pairs: an end of text stands before the source and another before the target.

    Each pair comes once an epoch. A side of more than `length` tokens, its end of text counted, is cut.

    Raises:
        DataError: the documents are not pairs.
    """

    def __init__(self, stream: TokenStream, length: int, seed: int, end_of_text: int) -> None:
        self.stream, self.length, self.end_of_text = stream, length, end_of_text
        super().__init__(stream.n_documents, seed)
        self._starts = stream.documents.astype(np.int64)
        self._ends = stream.ends.astype(np.int64)
        ends_of_text = stream.positions(end_of_text)
        self._middles = np.setdiff1d(ends_of_text, self._starts, assume_unique=True)
        is_pairs = len(self._middles) == self.size
        if not is_pairs or (self._middles < self._starts).any() or (self._middles >= self._ends).any():
            raise DataError(
                "The documents of this corpus are no pairs of source and target: data=pairs and data=docstrings make such."
            )

    @property
    def source_lengths(self) -> np.ndarray:
        """The tokens of each source (n,), an end of text counted, as far as they are read."""
        return np.minimum(self._middles - self._starts, self.length)

    @property
    def target_lengths(self) -> np.ndarray:
        """The tokens of each target (n,), an end of text counted, as far as they are written."""
        return np.minimum(self._ends - self._middles, self.length)

    @property
    def read(self) -> float:
        """The tokens of a source, on average."""
        return float(self.source_lengths.mean())

    @property
    def written(self) -> float:
        """The tokens of a target, on average."""
        return float(self.target_lengths.mean())

    @property
    def most_read(self) -> int:
        """The tokens of the longest source."""
        return int(self.source_lengths.max())

    @property
    def most_written(self) -> int:
        """The tokens of the longest target."""
        return int(self.target_lengths.max())

    @property
    def tokens(self) -> float:
        """The tokens of a pair, on average."""
        return self.read + self.written

    @cached_property
    def n_cut(self) -> int:
        """Pairs with a side that is longer than the context."""
        longest = np.maximum(self._middles - self._starts, self._ends - self._middles)
        return int((longest > self.length).sum())

    @property
    def note(self) -> str:
        """How many pairs are cut; empty where none is."""
        cut = f"{self.n_cut:,} of {self.size:,} pairs have a side longer than model.context_length and are cut to it."
        return cut if self.n_cut else ""

    def in_order(self, indices: np.ndarray) -> list[Pair]:
        """The pairs of these indices (n,); -1 is a pair of nothing."""
        return [NOTHING if index < 0 else self.pair(index) for index in indices.tolist()]

    def n_targets(self, indices: np.ndarray) -> np.ndarray | None:
        """The target tokens (n,) of training samples."""
        own = self.order.shuffled(indices)
        return np.minimum(self._ends[own] - self._middles[own], self.length)

    def pair(self, index: int) -> Pair:
        """A pair by its index in the stream."""
        start, middle, end = self._starts[index], self._middles[index], self._ends[index]
        sides = (self.stream.tokens[start + 1 : middle], self.stream.tokens[middle + 1 : end])
        return Pair(
            *(np.append(side[: self.length - 1], self.end_of_text).astype(np.int64) for side in sides)
        )


class PairCollator:
    """An encoder reads a source, and a decoder writes its target (arXiv 1409.3215, 1706.03762).

    Each side ends with an end of text, which the decoder writes too. Attention sees all but padding.

    Args:
        setting: the run's tokenizer, and the model, which says how long a side may be.
    """

    given: Given = "text"
    mixes = True

    extra_fields = ("source_documents_bs",)

    def __init__(self, setting: Setting) -> None:
        self.end_of_text, self.longest = setting.tokenizer.end_of_text, setting.model_config.context_length
        self.start = start_token(setting.tokenizer)

    def samples(self, stream: TokenStream, length: int, seed: int) -> Pairs:
        """A stream of pairs."""
        return Pairs(stream, length, seed, self.end_of_text)

    def mean_tokens(self, view: Pairs) -> TokenCounts:
        """The average pair's."""
        return TokenCounts(view.tokens, view.written, view.written, view.read)

    def longest_tokens(self, view: Pairs) -> TokenCounts:
        """The longest source's and the longest target's."""
        read, written = (padded(most, self.longest) for most in (view.most_read, view.most_written))
        return TokenCounts(read + written, written, written, read)

    def __call__(self, pairs: list[Pair], indices_b: np.ndarray) -> Batch:
        """The batch of pairs, each side padded to the longest of its kind."""
        sources, targets = zip(*pairs, strict=True)
        source_bs = filled(sources, padded_length(sources, self.longest), PADDING)
        targets_bk = filled(targets, padded_length(targets, self.longest), IGNORED)
        return Batch.of(
            tokens_bt=shifted(targets_bk, self.start),
            targets_bk=targets_bk,
            indices_b=indices_b,
            source_bs=np.where(source_bs == PADDING, self.end_of_text, source_bs),
            source_documents_bs=np.where(source_bs == PADDING, PADDING, 0),
        )


def padded_length(rows: Sequence[Sized], longest: int) -> int:
    """The length that the rows of a batch are padded to."""
    return padded(max(1, *(len(row) for row in rows)), longest)


def padded(length: int, longest: int) -> int:
    """The length that a batch is padded to whose longest row has `length` tokens."""
    return min(-(-length // LENGTH_STEP) * LENGTH_STEP, longest)
