"""The clock, the meter inside a real Lightning run, and the peak."""

import math

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from llm.train.metrics import Clock, Meter, StepMetrics

TOKENS = 100


class FakeTime:
    """A clock that goes on only when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds


TIME = FakeTime()


class Rows(Logger):
    """Keeps what it is given."""

    name = version = "rows"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict]] = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_):
        pass


class Shown:
    def __init__(self) -> None:
        self.steps: list[StepMetrics] = []
        self.validations: list[tuple] = []

    def show_step(self, metrics):
        self.steps.append(metrics)

    def show_validation(self, *figures):
        self.validations.append(figures)


class Module(L.LightningModule):
    """The least that the meter reads; a step takes `seconds`."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seconds = seconds
        self.first_step_takes = 0.0
        self.grad_norm = 2.5
        self.val_loss = math.nan
        self.used_lrs: list[float] = []

    def step_loss(self) -> float:
        return float(self.trainer.global_step)

    def training_step(self, batch, batch_idx):
        TIME.pass_by(self.seconds if batch_idx else self.first_step_takes or self.seconds)
        return self.weight * batch.sum()

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        self.used_lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step(closure=optimizer_closure)

    def validation_step(self, batch, batch_idx):
        TIME.pass_by(50)

    def on_validation_epoch_end(self):
        self.val_loss = 8 * math.log(2)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Slow(torch.utils.data.IterableDataset):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __iter__(self):
        while True:
            TIME.pass_by(self.seconds)
            yield torch.zeros(1)


class Sampler(L.Callback):
    """Spends time between steps, and says so."""

    def __init__(self, meter: Meter, seconds: float) -> None:
        self.meter, self.seconds = meter, seconds

    def on_train_batch_start(self, *_):
        with self.meter.paused():
            TIME.pass_by(self.seconds)

    def on_train_batch_end(self, *_):
        with self.meter.paused():
            TIME.pass_by(self.seconds)


def fit(tmp_path, *, module=None, load=0.0, pause=None, **trainer):
    shown, rows = Shown(), Rows()
    meter = Meter(
        TOKENS, bytes_per_token=4.0, flops_per_token=1e6, peak_flops=1e9, observers=[shown], now=TIME
    )
    callbacks = [meter] + ([Sampler(meter, pause)] if pause else [])
    arguments = {
        "max_steps": 6,
        "log_every_n_steps": 2,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        **trainer,
    }
    loader = torch.utils.data.DataLoader(Slow(load), batch_size=None)
    validation = torch.utils.data.DataLoader(torch.zeros(2, 1))
    module = module or Module()
    L.Trainer(
        accelerator="cpu",
        logger=rows,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **arguments,
    ).fit(module, loader, validation)
    return module, shown, rows, meter


def test_clock_separates_work_waiting_and_pauses():
    now = FakeTime()
    clock = Clock(now)
    clock.wait_begins()
    now.seconds += 2
    clock.pause()
    now.seconds += 5
    clock.pause()
    now.seconds += 5
    clock.resume()
    clock.resume()
    clock.wait_ends()
    now.seconds += 3
    clock.pause()
    now.seconds += 7
    clock.resume()
    assert clock.span() == (5, 2)
    clock.restart()
    now.seconds += 1
    assert clock.span() == (1, 0)


def test_optimizer_steps_count_and_not_batches(tmp_path):
    _, shown, rows, _ = fit(tmp_path, accumulate_grad_batches=3, max_steps=5)
    assert [metrics.step for metrics in shown.steps] == [2, 4, 5]
    assert [metrics.tokens for metrics in shown.steps] == [200, 400, 500]
    assert [metrics.loss for metrics in shown.steps] == [2, 4, 5]
    assert [step for step, _ in rows.rows] == [2, 4, 5]
    assert shown.steps[0].total_steps == 5
    assert shown.steps[-1].seconds_left == 0
    assert shown.steps[0].seconds_left > 0


def test_figures(tmp_path):
    module, shown, rows, _ = fit(tmp_path)
    metrics = shown.steps[-1]
    assert metrics.bits_per_byte == pytest.approx(6 / math.log(2) / 4)
    assert metrics.grad_norm == 2.5
    assert metrics.mfu == pytest.approx(metrics.tokens_per_second * 1e6 / 1e9)
    assert [m.lr for m in shown.steps] == [module.used_lrs[1], module.used_lrs[3], module.used_lrs[5]]
    assert rows.rows[-1] == (6, metrics.logged())
    assert set(metrics.logged()) == {
        "tokens",
        "train/loss",
        "train/bits_per_byte",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "mfu",
        "data_wait",
    }


def test_speed_is_of_training_alone(tmp_path):
    # A second a step, 8 in pauses around it, and 100 of validation after every second step.
    _, shown, _, _ = fit(tmp_path, pause=4.0, limit_val_batches=2, val_check_interval=2)
    assert [metrics.tokens_per_second for metrics in shown.steps] == [TOKENS] * 3
    assert [metrics.data_wait for metrics in shown.steps] == [0] * 3
    # What is left does include them; the pause after a logged step hasn't happened when it is logged.
    assert shown.steps[1].seconds_left == pytest.approx(2 * (3 * 9 + 100) / 3)


def test_data_wait_is_the_share_of_time_in_the_loader(tmp_path):
    _, shown, _, _ = fit(tmp_path, load=3.0, pause=2.0, max_steps=8)
    assert [metrics.data_wait for metrics in shown.steps] == [0.75] * 4
    assert [metrics.tokens_per_second for metrics in shown.steps] == [TOKENS / 4] * 4


def test_the_first_step_does_not_count_in_the_speed(tmp_path):
    module = Module()
    module.first_step_takes = 1000.0
    _, shown, _, _ = fit(tmp_path, module=module, max_steps=8)
    assert [metrics.tokens_per_second for metrics in shown.steps] == [TOKENS] * 4
    assert shown.steps[0].seconds_left == 6


def test_validation_goes_to_loggers_and_observers(tmp_path):
    _, shown, rows, _ = fit(tmp_path, limit_val_batches=2, val_check_interval=2, num_sanity_val_steps=1)
    expected = {"val/loss": 8 * math.log(2), "val/bits_per_byte": 2.0}
    validations = [row for row in rows.rows if "val/loss" in row[1]]
    assert validations == [(step, pytest.approx(expected)) for step in (2, 4, 6)]
    assert [step for step, *_ in shown.validations] == [2, 4, 6]


def test_peak_is_measured_once_where_it_is_not_given(tmp_path):
    meter = Meter(1, 1.0, 1.0)
    module = Module()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    meter.on_train_start(trainer, module)
    first = meter.peak_flops
    assert first > 1e8
    meter.on_train_start(trainer, module)
    assert meter.peak_flops == first
