"""The LightningDataModule of a corpus: exact order while training, every token once while validating.

Shapes: n samples.
"""

from collections.abc import Iterator
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader, Dataset

from llm.data.collators.base import Batch, Collator
from llm.data.mixture import AnyCorpus
from llm.data.sampling.order import accumulation, micro_batch, permute
from llm.data.sampling.view import SampleView

PREFETCH = 4


class TrainingSet(Dataset):
    """Batches of the infinite sequence of samples."""

    def __init__(self, view: SampleView, collate: Collator, batch_size: int) -> None:
        self.view, self.collate, self.batch_size = view, collate, batch_size

    def __getitems__(self, indices: np.ndarray) -> Batch:
        """The batch of the samples of these indices (n,), which are all of one step."""
        batch = self.collate(self.view.training(indices), indices)
        first = indices[0] // self.batch_size * self.batch_size
        of_step = self.view.n_targets(np.arange(first, first + self.batch_size))
        if of_step is None:
            return batch
        # The mean over the step's micro-batches of how many targets each has: their losses then average to the step's.
        divisor = float(of_step.sum() * len(indices) / self.batch_size)
        return batch._replace(divisor=torch.tensor(divisor))


class ScoringSet(Dataset):
    """Batches of all samples of a stream; -1 asks for a sample of nothing, which has no target."""

    def __init__(self, view: SampleView, collate: Collator) -> None:
        self.view, self.collate = view, collate

    def __getitems__(self, indices: np.ndarray) -> Batch:
        """The batch of the samples of these indices (n,)."""
        return self.collate(self.view.in_order(indices), indices)


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
        self.sizes = {
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "world_size": world_size,
        }

    def __iter__(self) -> Iterator[np.ndarray]:
        step = 0
        while True:
            for micro in range(self.accumulation):
                yield self.consumed + micro_batch(step, micro, self.rank, **self.sizes)
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
            indices = np.arange(first, first + self.batch_size)
            windows = permute(indices % self.n_windows, self.n_windows, np.zeros(self.batch_size, np.uint64))
            yield np.where(indices < self.n_windows, windows, -1)


def _as_it_is(batch: Any) -> Any:
    return batch


class CorpusDataModule(L.LightningDataModule):
    """Batches of `batch_size` sequences over all processes, `micro_batch_size` at a time in each.

    `train_view` and `validation_view` are the streams of `corpus` as `collate` cuts them. With `repeat_batch` every step takes the
    first step's batch. Set `consumed`, the samples that training has used, before fit to go on behind them. The trainer
    must be made with `use_distributed_sampler=False`.
    """

    def __init__(
        self,
        corpus: AnyCorpus,
        collate: Collator,
        train_view: SampleView,
        validation_view: SampleView,
        *,
        batch_size: int,
        micro_batch_size: int,
        repeat_batch: bool = False,
    ) -> None:
        super().__init__()
        self.corpus, self.collate = corpus, collate
        self.train_view, self.validation_view = train_view, validation_view
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.repeat_batch = repeat_batch
        self.consumed = 0

    def train_dataloader(self) -> DataLoader:
        """Without end and without a length."""
        rank, world_size = self._place()
        sizes = self.batch_size, self.micro_batch_size
        consumed, stride = (0, 0) if self.repeat_batch else (self.consumed, 1)
        sampler = TrainSampler(consumed, *sizes, rank, world_size, stride)
        return self._loader(TrainingSet(self.train_view, self.collate, self.batch_size), sampler)

    def val_dataloader(self) -> DataLoader | list:
        """Every held-out token once over all processes; no loader where nothing is held out."""
        if self.validation_view.n_in_order < 1:
            return []
        sampler = ValidationSampler(self.validation_view.n_in_order, self.micro_batch_size, *self._place())
        return self._loader(ScoringSet(self.validation_view, self.collate), sampler)

    def _place(self) -> tuple[int, int]:
        """This process and how many there are, of those that read different data."""
        if self.trainer is None:
            return 0, 1
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            # Processes that share each matrix product read the same.
            place = self.trainer.strategy.distributed_sampler_kwargs
            return place["rank"], place["num_replicas"]
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(self, dataset: Dataset, sampler: TrainSampler | ValidationSampler) -> DataLoader:
        # Beside a CPU model a worker only takes its cores away: a batch takes less than 0.1 ms to read.
        on_accelerator = self.trainer is not None and self.trainer.strategy.root_device.type != "cpu"
        return DataLoader(
            dataset,
            batch_sampler=cast(Any, sampler),
            collate_fn=_as_it_is,
            num_workers=1 if on_accelerator else 0,
            prefetch_factor=PREFETCH if on_accelerator else None,
            pin_memory=on_accelerator,
        )
