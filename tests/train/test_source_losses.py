"""Losses by source: whose they are, and none where the objective doesn't tell its rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llm.data.collators.base import Batch
from llm.objective import Rows
from llm.train.source_losses import SourceLosses


class Halves:
    """Samples of two sources in turn."""

    source_names = ("even", "odd")

    def place(self, numbers):
        return numbers % 2, numbers // 2

    place_in_order = place


@pytest.fixture
def logged():
    """Figures that were logged, by the trainer that logs them."""
    figures = {}
    logger = SimpleNamespace(log_metrics=lambda metrics, step: figures.update({step: metrics}))
    trainer = SimpleNamespace(
        global_step=0,
        log_every_n_steps=1,
        max_steps=1,
        sanity_checking=False,
        loggers=[logger],
        strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
    )
    return trainer, figures


def one_step(trainer, rows):
    """A step and a validation of two samples, one of each source."""
    losses, module = SourceLosses(Halves.source_names, Halves(), Halves()), SimpleNamespace(row_losses=rows)
    batch = Batch.of(tokens_bt=np.zeros((2, 4)), targets_bk=np.zeros((2, 4)), indices_b=np.array([2, 5]))
    losses.on_train_start(trainer, module)
    trainer.global_step = 1
    losses.on_train_batch_end(trainer, module, None, batch, 0)
    trainer.global_step = 2
    losses.on_validation_batch_end(trainer, module, None, batch, 0)
    losses.on_validation_end(trainer, module)


def test_each_source_has_the_mean_of_its_rows(logged):
    trainer, figures = logged
    one_step(trainer, Rows(torch.tensor([6.0, 2.0]), torch.tensor([3, 4])))
    assert figures == {
        1: {"train/loss/even": 2.0, "train/loss/odd": 0.5},
        2: {"val/loss/even": 2.0, "val/loss/odd": 0.5},
    }


def test_an_objective_that_tells_no_rows_has_no_losses_by_source(logged):
    trainer, figures = logged
    one_step(trainer, None)
    assert figures == {}
