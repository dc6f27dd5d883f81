"""What collators give and are given: batches, the setting of a run, and what training on them asks of a model.

Shapes: b batch, t time, k targets in a row, s time of a source.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from llm.data.corpus import TokenStream
from llm.data.sampling.view import SampleView
from llm.data.sampling.windows import Windows
from llm.model import ModelConfig
from llm.tokenizer import Tokenizer


class Batch(NamedTuple):
    """What a model reads and what it is scored by, all int64 but for targets that are numbers.

    Args:
        tokens_bt: the inputs; of a decoder with a source, its target, one position later.
        targets_bk: the tokens or labels to predict, `IGNORED` where there is none.
        numbers_b: the number of each sample in the order of training (-1: filled up).
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
    numbers_b: Tensor
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


# What a person gives a model: a beginning to go on from, text with hidden parts, a whole text, turns of a chat.
Given = Literal["beginning", "hidden", "text", "chat"]


class Collator(Protocol):
    """Makes batches of samples.

    Its class may have a method `shaped`, which says what the task asks of a model's shape (see `LabelCollator.shaped`), an
    attribute `of_preferences`, true where a source's chats are read as preferences, and an attribute `mixes`, true where
    samples of several sources may stand in one batch, as data=mixture puts them there; a function that makes collators says
    so by the classes that it is annotated to return. A collator of windows may have a method `window_work` (see
    `WindowCollator`).
    """

    given: Given

    def work(self, view: Any) -> Work:
        """What the average sample of a view of its own takes."""
        ...

    def most(self, view: Any) -> Work:
        """What the longest sample of a view takes, as its batch is padded."""
        ...

    @property
    def marks(self) -> tuple[str, ...]:
        """The fields of its batches that stand beside tokens, targets and positions."""
        ...

    @property
    def cut(self) -> Callable[[TokenStream, int, int], SampleView]:
        """Cuts a stream into samples for a context length and a seed."""

    def __call__(self, samples: Any, numbers_b: np.ndarray) -> Batch:
        """The batch of samples, as the view gives them, with their numbers (b,)."""
        ...


class WindowCollator(ABC):
    """Base of what makes batches of windows: what one takes follows from its length alone."""

    given: Given = "beginning"
    mixes: ClassVar[bool] = True

    cut = Windows

    @abstractmethod
    def window_work(self, length: int) -> Work:
        """What a window of so many tokens takes, whatever the text."""

    def work(self, view: Windows) -> Work:
        """What each window takes."""
        return self.window_work(view.length)

    most = work


def load(collate: Collator, view: SampleView) -> Load:
    """What training on a view's samples asks of a model, each stream counted by its weight."""
    views, weights = zip(*view.weighted_views, strict=True)
    works = np.array([collate.work(one) for one in views])
    # Of streams that are alike the mean is what each takes, to the last bit.
    mean = works[0] + weights @ (works - works[0]) / sum(weights)
    most = np.max([collate.most(one) for one in views], axis=0)
    return Load(Work(*mean.tolist()), Work(*most.tolist()), collate.marks)


def document_numbers(tokens_bt: np.ndarray, end_of_text: int) -> np.ndarray:
    """The document of each token, counted within its row: an end of text begins one."""
    return np.cumsum(tokens_bt == end_of_text, axis=1)
