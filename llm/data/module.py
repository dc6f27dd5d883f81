"""The LightningDataModule of a corpus: exact order while training, every token once while validating.

Shapes: n samples, t time.
"""

from collections.abc import Iterator
from typing import Any, cast

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset

from llm.data.collate import IGNORED, Batch, Collator
from llm.data.order import SampleOrder, accumulation, micro_batch, permute
from llm.data.shards import Corpus, TokenStream
from llm.errors import DataError

PREFETCH = 4


class TrainWindows(Dataset):
    """Batches of the infinite sequence of samples."""

    def __init__(self, stream: TokenStream, order: SampleOrder, collate: Collator) -> None:
        self.stream, self.order, self.collate = stream, order, collate

    def __getitems__(self, samples: np.ndarray) -> Batch:
        """The batch of the samples (n,)."""
        return self.collate(self.stream.read(self.order.starts(samples), self.order.length + 1), samples)


class ValidationWindows(Dataset):
    """Windows side by side, so that each token but the first is a target once; -1 asks for a window of nothing."""

    def __init__(self, stream: TokenStream, length: int, collate: Collator) -> None:
        self.stream, self.length, self.collate = stream, length, collate

    def __getitems__(self, windows: np.ndarray) -> Batch:
        """The batch of the windows (n,), with `IGNORED` targets past the end of the stream."""
        starts = np.where(windows < 0, len(self.stream), windows * self.length)
        return self.collate(self.stream.read_padded(starts, self.length + 1, IGNORED), windows)


class TrainSampler:
    """The micro-batches of one process behind the first `consumed` samples, each step `stride` steps on."""

    def __init__(
        self,
        consumed: int,
        batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        stride: int = 1,
    ) -> None:
        self.consumed, self.rank, self.stride = consumed, rank, stride
        self.accumulation = accumulation(batch_size, micro_batch_size, world_size)
        self.shares = {
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "world_size": world_size,
        }

    def __iter__(self) -> Iterator[np.ndarray]:
        step = 0
        while True:
            for micro in range(self.accumulation):
                yield self.consumed + micro_batch(step, micro, self.rank, **self.shares)
            step += self.stride


class ValidationSampler:
    """The batches of one process: as many in each, of the same size, filled up with windows of nothing (-1).

    The windows come in one fixed shuffled order, so that the first few stand for the whole.
    """

    def __init__(self, n_windows: int, batch_size: int, rank: int, world_size: int) -> None:
        self.n_windows, self.batch_size, self.rank, self.world_size = n_windows, batch_size, rank, world_size

    def __len__(self) -> int:
        return -(-self.n_windows // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(len(self)):
            first = (number * self.world_size + self.rank) * self.batch_size
            numbers = np.arange(first, first + self.batch_size)
            windows = permute(numbers % self.n_windows, self.n_windows, np.zeros(self.batch_size, np.uint64))
            yield np.where(numbers < self.n_windows, windows, -1)


def _as_it_is(batch: Any) -> Any:
    return batch


class CorpusDataModule(L.LightningDataModule):
    """Batches of `batch_size` sequences over all processes, `micro_batch_size` at a time in each.

    With `repeat_batch` every step takes the first step's batch. Set `consumed`, the samples that training has used,
    before fit to go on behind them. The trainer must be made with `use_distributed_sampler=False`. Raises DataError
    where the training stream is shorter than one window.
    """

    def __init__(
        self,
        corpus: Corpus,
        collate: Collator,
        *,
        context_length: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        repeat_batch: bool = False,
    ) -> None:
        super().__init__()
        self.corpus, self.collate = corpus, collate
        self.context_length, self.batch_size, self.micro_batch_size = (
            context_length,
            batch_size,
            micro_batch_size,
        )
        self.repeat_batch = repeat_batch
        self.consumed = 0
        self.order = SampleOrder(_long_enough(corpus, context_length), context_length, seed)

    @property
    def windows_per_epoch(self) -> int:
        """Samples in one pass over the training stream."""
        return self.order.size

    def train_dataloader(self) -> DataLoader:
        """Without end and without a length."""
        rank, world_size = self._place()
        sizes = self.batch_size, self.micro_batch_size
        consumed, stride = (0, 0) if self.repeat_batch else (self.consumed, 1)
        sampler = TrainSampler(consumed, *sizes, rank, world_size, stride)
        return self._loader(TrainWindows(self.corpus.train, self.order, self.collate), sampler)

    def val_dataloader(self) -> DataLoader | list:
        """Every held-out token once over all processes; no loader where nothing is held out."""
        stream = self.corpus.validation
        n_windows = -(-(len(stream) - 1) // self.context_length)
        if n_windows < 1:
            return []
        sampler = ValidationSampler(n_windows, self.micro_batch_size, *self._place())
        return self._loader(ValidationWindows(stream, self.context_length, self.collate), sampler)

    def _place(self) -> tuple[int, int]:
        """This process and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, windows: Dataset, sampler: TrainSampler | ValidationSampler) -> DataLoader:
        # Beside a CPU model a worker only takes its cores away: a batch takes less than 0.1 ms to read.
        on_accelerator = self.trainer is not None and self.trainer.strategy.root_device.type != "cpu"
        return DataLoader(
            windows,
            batch_sampler=cast(Any, sampler),
            collate_fn=_as_it_is,
            num_workers=1 if on_accelerator else 0,
            prefetch_factor=PREFETCH if on_accelerator else None,
            pin_memory=on_accelerator,
        )


def _long_enough(corpus: Corpus, context_length: int) -> int:
    n_tokens = len(corpus.train)
    if n_tokens <= context_length:
        raise DataError(
            f"The training text of {corpus.name} has {n_tokens} tokens, fewer than one window of "
            f"model.context_length={context_length} and its next token: add text, or shorten the context."
        )
    return n_tokens
