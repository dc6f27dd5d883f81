"""What collators give and are given: batches, the setting of a run, and what training on them asks of a model.

Shapes: b batch, t time, k targets in a row, s time of a source.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor

from llm.data.corpus import TokenStream
from llm.data.sampling.view import SampleView
from llm.data.sampling.windows import Windows
from llm.errors import ConfigError
from llm.model import ModelConfig
from llm.tokenizer import Tokenizer


class Batch(NamedTuple):
    """What a model reads and what it is scored by, all int64 but for targets that are numbers.

    Args:
        tokens_bt: the inputs; of a decoder with a source, its target, one position later.
        targets_bk: the tokens or labels to predict, `IGNORED` where there is none.
        indices_b: the index of each sample in the order of training (-1: filled up).
        documents_bt: the document of each input, llm.model.mask.PADDING for none; None where a row is one document.
        positions_bk: where the targets stand; None where each input has one.
        source_bs: what an encoder-decoder reads.
        source_documents_bs: the document of each token of it.
        segments_bt: the segment of each input; None for one alone.
        divisor: what the summed loss is divided by in training, where a step's micro-batches differ in the number of
            their targets: the mean of the step's, (); None where it is the number of this batch's.
        prefix_b: how many of a row's first tokens are read on both sides; None where none are.
        reference_b2: the log-probabilities of a better and a worse answer under the reference model; the other rows are then
            in turn of these two.
    """

    tokens_bt: Tensor
    targets_bk: Tensor
    indices_b: Tensor
    documents_bt: Tensor | None = None
    positions_bk: Tensor | None = None
    source_bs: Tensor | None = None
    source_documents_bs: Tensor | None = None
    segments_bt: Tensor | None = None
    divisor: Tensor | None = None
    prefix_b: Tensor | None = None
    reference_b2: Tensor | None = None

    @classmethod
    def of(cls, **arrays: np.ndarray) -> "Batch":
        """The batch of arrays by the names of its fields."""
        return cls(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`."""
        return Batch(*(None if tensor is None else tensor.to(device) for tensor in self))  # type: ignore[arg-type]

    def inputs(self) -> dict[str, Any]:
        """The arguments of the model beside the tokens."""
        return {
            "documents_bt": self.documents_bt,
            "segments_bt": self.segments_bt,
            "positions_bk": self.positions_bk,
            "source_bs": self.source_bs,
            "source_documents_bs": self.source_documents_bs,
            "prefix_b": self.prefix_b,
        }


@dataclass(frozen=True)
class Setting:
    """What a collator is told of the run that it works for."""

    tokenizer: Tokenizer
    seed: int
    model_config: ModelConfig

    @property
    def shape(self) -> NoReturn:
        """What `model_config` was called before: it tells a collator from then the new name.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "task.collator: your collator has another name than llm.data.collators.base.Setting: "
            "shape is model_config now."
        )


class TokenCounts(NamedTuple):
    """Tokens of a sample; of an average one they need not be whole numbers.

    Args:
        counted: those that count in tokens per second.
        inputs: those that the model reads; of an encoder-decoder its decoder.
        targets: the positions that are scored.
        source: those that an encoder-decoder's encoder reads.
    """

    counted: float
    inputs: float
    targets: float
    source: float = 0.0

    @classmethod
    def full(cls, length: float) -> "TokenCounts":
        """Of a row of this length that is scored in every place."""
        return cls(length, length, length)


class SampleCost(NamedTuple):
    """What the samples of a training text ask of a model.

    Args:
        mean: the tokens of the average sample.
        longest: those of the longest one, as its batch is padded.
        extra_fields: the fields of a `Batch` that stand beside tokens, targets and positions, such as `documents_bt`.
    """

    mean: TokenCounts
    longest: TokenCounts
    extra_fields: tuple[str, ...] = ()


# What a person gives a model: a beginning to go on from, text with hidden parts, a whole text, turns of a chat.
Given = Literal["beginning", "hidden", "text", "chat"]
# What eval=perplexity scores: each token of the text but the first, each as it is hidden, or a collator's own targets.
ScoredBy = Literal["tokens", "hidden_tokens", "targets"]


class Collator(Protocol):
    """Makes batches of samples.

    Its class may have a method `shaped`, which says what the task asks of a model's config (see `LabelCollator.shaped`),
    an attribute `of_preferences`, true where a source's chats are read as preferences, and an attribute `mixes`, true where
    samples of several sources may stand in one batch, as data=mixture puts them there; a function that makes collators says
    so by the classes that it is annotated to return. A collator of windows may have a method `window_tokens` (see
    `WindowCollator`). How eval=perplexity scores held-out text a class says by an attribute `scored_by` (see `scored_by`).
    """

    given: Given

    def samples(self, stream: TokenStream, length: int, seed: int) -> SampleView:
        """The samples of a stream, of at most `length` tokens; `seed` decides their order."""
        ...

    def mean_tokens(self, view: Any) -> TokenCounts:
        """The tokens of the average sample of a view of its own."""
        ...

    def longest_tokens(self, view: Any) -> TokenCounts:
        """The tokens of the longest sample of a view, as its batch is padded."""
        ...

    @property
    def extra_fields(self) -> tuple[str, ...]:
        """The fields of its batches that stand beside tokens, targets and positions."""
        ...

    def __call__(self, samples: Any, indices_b: np.ndarray) -> Batch:
        """The batch of samples, as the view gives them, with their indices (b,)."""
        ...


class WindowCollator(ABC):
    """Base of what makes batches of windows: the tokens of one follow from its length alone."""

    given: Given = "beginning"
    mixes: ClassVar[bool] = True

    def samples(self, stream: TokenStream, length: int, seed: int) -> Windows:
        """The windows of a stream."""
        return Windows(stream, length, seed)

    @abstractmethod
    def window_tokens(self, length: int) -> TokenCounts:
        """The tokens of a window of this length, whatever the text."""

    def mean_tokens(self, view: Windows) -> TokenCounts:
        """The tokens of each window."""
        return self.window_tokens(view.length)

    longest_tokens = mean_tokens


def measure_samples(collate: Collator, view: SampleView) -> SampleCost:
    """What the samples of a view ask of a model, each stream counted by its weight."""
    views, weights = zip(*view.weighted_views, strict=True)
    counts = np.array([collate.mean_tokens(one) for one in views])
    # Of streams that are alike the mean is that of each, to the last bit.
    mean = counts[0] + weights @ (counts - counts[0]) / sum(weights)
    longest = np.max([collate.longest_tokens(one) for one in views], axis=0)
    return SampleCost(TokenCounts(*mean.tolist()), TokenCounts(*longest.tolist()), collate.extra_fields)


def scored_by(collate: Collator) -> ScoredBy:
    """What eval=perplexity scores of the collator's task: `scored_by` of its own class, or else its targets.

    The attribute isn't inherited: a class that is made from another one may have other targets, which its own batches tell.
    """
    return vars(type(collate)).get("scored_by", "targets")


def document_numbers(tokens_bt: np.ndarray, end_of_text: int) -> np.ndarray:
    """The document of each token, counted within its row: an end of text begins one."""
    return np.cumsum(tokens_bt == end_of_text, axis=1)
