"""The loss of each source of a mixture, from the forward passes that training and validation make anyway.

Shapes: b batch, p sources of the mixture.
"""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch

from llm.data.collators.base import Batch
from llm.data.sampling.view import SampleView
from llm.objective import Rows
from llm.train.rows import column

Place = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class SourceLosses(L.Callback):
    """Logs the mean loss of each source in nats per target.

    In training it is over all targets since the last logged step, by all ranks; in validation over all that were
    scored. A source of which there were none has no figure, and none has one where the objective doesn't tell `Loss.rows`.

    Args:
        names: of the sources, in the mixture's order.
        train: the training samples, which say whose each is.
        validation: those for scoring.
    """

    def __init__(self, names: Sequence[str], train: SampleView, validation: SampleView) -> None:
        self.names = list(names)
        self._train, self._validation = Tally(train.place), Tally(validation.place_in_order)
        self._step = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin where the run goes on from."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the rows' losses, and log them with the step's other figures."""
        self._train.add(pl_module.row_losses, batch)  # type: ignore[arg-type]
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if step % max(trainer.log_every_n_steps, 1) == 0 or step == trainer.max_steps:  # type: ignore[attr-defined]
            self._log(trainer, "train", self._train)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the rows' losses."""
        self._validation.add(pl_module.row_losses, batch)  # type: ignore[arg-type]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log them."""
        self._log(trainer, "val", self._validation)

    def _log(self, trainer: L.Trainer, split: str, tally: "Tally") -> None:
        sums_2p = trainer.strategy.reduce(tally.take(len(self.names)), reduce_op="sum")
        figures = self._means(split, sums_2p)
        if figures and not trainer.sanity_checking:
            for logger in trainer.loggers:
                logger.log_metrics(figures, trainer.global_step)

    def _means(self, split: str, sums_2p: torch.Tensor) -> dict[str, float]:
        nats_p, targets_p = sums_2p.tolist()
        return {
            column(split, name): nats / targets
            for name, nats, targets in zip(self.names, nats_p, targets_p, strict=True)
            if targets
        }


class Tally:
    """Losses of rows, kept on their device until somebody asks whose they are."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(self, rows: Rows | None, batch: Batch) -> None:
        """Keep a batch's, where its objective tells them."""
        if rows is not None:
            self._kept.append((rows.nats_b, rows.targets_b, batch.indices_b))

    def take(self, n_sources: int) -> torch.Tensor:
        """The nats and the targets of each source (2, p), float64, and begin anew."""
        sums_2p = torch.zeros(2, n_sources, dtype=torch.float64)
        if self._kept:
            nats, targets, indices = (torch.cat(column).cpu() for column in zip(*self._kept, strict=True))
            sources = torch.from_numpy(self._place(indices.numpy())[0])
            sums_2p[0].index_add_(0, sources, nats.double())
            sums_2p[1].index_add_(0, sources, targets.double())
        self._kept = []
        return sums_2p
