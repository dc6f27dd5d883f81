"""What collators give and are given: batches, the setting of a run, and the views that cut a stream into samples.

Shapes: b batch, t time, k targets in a row, s time of a source.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from llm.data.corpus import TokenStream
from llm.model import ModelConfig
from llm.tokenizer import Tokenizer


class Batch(NamedTuple):
    """What a model reads and what it is scored by, all int64 but for targets that are numbers.

    Args:
        tokens_bt: the inputs; of a decoder with a source, its target, one position later.
        targets_bk: the tokens or labels to predict, `IGNORED` where there is none.
        ids: the index of each sample (b,) in the order of training (-1: filled up).
        documents_bt: the document of each input, llm.model.mask.PADDING for none; None where a row is one document.
        positions_bk: where the targets stand; None where each input has one.
        source_bs: what an encoder-decoder reads.
        source_documents_bs: the document of each token of it.
        segments_bt: the segment of each input; None for one alone.
        divisor: what the summed loss is divided by in training, where a step's micro-batches differ in the number of
            their targets: the mean of the step's, (); None where it is the number of this batch's.
        prefix_b: how many of a row's first tokens are read on both sides; None where none are.
        reference_b2: the log-probabilities of a better and a worse answer under the first model; the other rows are then
            in turn of these two.
    """

    tokens_bt: Tensor
    targets_bk: Tensor
    ids: Tensor
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
    shape: ModelConfig


class Work(NamedTuple):
    """What a sample takes, in tokens: those that count in the speed, those written, scored, and read of a source."""

    tokens: float
    written: float
    scored: float
    read: float = 0.0

    @classmethod
    def full(cls, length: float) -> "Work":
        """Of a row of this length that is scored in every place."""
        return cls(length, length, length)


class Load(NamedTuple):
    """What training asks of a model.

    Args:
        work: of the average sample.
        most: of the longest, as its batch is padded.
        marks: the fields of a batch that stand beside the tokens, such as which document each is of.
    """

    work: Work
    most: Work
    marks: tuple[str, ...] = ()


class Samples(Protocol):
    """A stream as samples, numbered in the order of training and, each once, in that of scoring."""

    @property
    def size(self) -> int:
        """Samples in one pass over the stream."""

    @property
    def n_held_out(self) -> int:
        """Samples that make each target of the stream one once."""

    def training(self, numbers: np.ndarray) -> Any:
        """The training samples of these numbers (n,), as the collator takes them."""

    @property
    def tokens(self) -> float:
        """The tokens of a sample, on average."""

    @property
    def note(self) -> str:
        """What became of that which is longer than the context, in a sentence; empty where all fits."""

    def held_out(self, numbers: np.ndarray) -> Any:
        """The samples for scoring of these numbers (n,); -1 asks for one of nothing."""

    def n_targets(self, numbers: np.ndarray) -> np.ndarray | None:
        """The targets (n,) of the training samples of these numbers (n,); None where all have as many."""


# What a person gives a model: a beginning to go on from, text with hidden parts, a whole text, turns of a chat.
Given = Literal["beginning", "hidden", "text", "chat"]


class Collator(Protocol):
    """Makes batches of samples.

    Its class may have a method `shaped`, which says what the task asks of a model's shape (see `LabelCollator.shaped`), and
    an attribute `of_preferences`, true where a source's chats are read as preferences.
    """

    given: Given

    def work(self, samples: Any) -> Work:
        """What a sample of a view of its own takes."""
        ...

    def most(self, samples: Any) -> Work:
        """What the longest sample of a view takes, as its batch is padded."""
        ...

    @property
    def marks(self) -> tuple[str, ...]:
        """The fields of its batches that stand beside tokens, targets and positions."""
        ...

    @property
    def view(self) -> Callable[[TokenStream, int, int], Samples]:
        """Cuts a stream into samples for a context length and a seed."""

    def __call__(self, samples: Any, ids: np.ndarray) -> Batch:
        """The batch of samples, as the view gives them, with their numbers (n,)."""
        ...


def load(collate: Collator, samples: Any) -> Load:
    """What training on a view's samples asks of a model."""
    return Load(collate.work(samples), collate.most(samples), collate.marks)


def document_numbers(tokens_bt: np.ndarray, end_of_text: int) -> np.ndarray:
    """The document of each token, counted within its row: an end of text begins one."""
    return np.cumsum(tokens_bt == end_of_text, axis=1)
