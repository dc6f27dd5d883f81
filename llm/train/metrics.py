"""What is measured while a model trains: the figures of a step, the clock behind them, and the machine's peak."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import lightning as L

from llm.train.hardware import peak_flops
from llm.train.precision import compute_dtype


@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """The figures of one optimizer step.

    Args:
        step: optimizer steps done, those before a resume included.
        total_steps: the run's length; None when it has no set end.
        tokens: those that count in the speed, of all ranks since the first step.
        loss: over the step's global batch, in nats per target.
        bits_per_byte: the same in bits per byte of text; None for what does not predict a text in order.
        lr: what the step was taken with; the first parameter group's.
        grad_norm: before clipping.
        tokens_per_second: of all ranks since the last logged step, without validation, sampling and saving.
        mfu: the share of the machine's peak that the model's own operations reach at that speed.
        data_wait: the share of that time spent waiting for a batch.
        seconds_left: until the last step, validation, sampling and saving included; None when unknown.
    """

    step: int
    total_steps: int | None
    tokens: int
    loss: float
    bits_per_byte: float | None
    lr: float
    grad_norm: float
    tokens_per_second: float
    mfu: float
    data_wait: float
    seconds_left: float | None

    def logged(self) -> dict[str, float]:
        """By the names of metrics.csv, without `step`."""
        return {
            "tokens": self.tokens,
            "train/loss": self.loss,
            **_if_known("train/bits_per_byte", self.bits_per_byte),
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "tokens_per_second": self.tokens_per_second,
            "mfu": self.mfu,
            "data_wait": self.data_wait,
        }


# What work happens within that must not count in the speed.
Pause = Callable[[], contextlib.AbstractContextManager[None]]


def together(*pauses: Pause) -> Pause:
    """Several as one."""

    @contextlib.contextmanager
    def paused() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for pause in pauses:
                stack.enter_context(pause())
            yield

    return paused


class Observer(Protocol):
    """Shows figures to a person."""

    def show_step(self, metrics: StepMetrics) -> None:
        """Take a logged step's figures."""

    def show_validation(self, step: int, loss: float, bits_per_byte: float | None) -> None:
        """Take a validation's figures."""


class Clock:
    """Splits the time since `restart` into working, waiting for data, and pauses."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._pauses = 0
        self.restart()
        self.wait_begins()

    def restart(self) -> None:
        """Begin a new span."""
        self._began = self._now()
        self._paused = self._waited = 0.0

    def wait_begins(self) -> None:
        """From here a batch is waited for."""
        self._wait_began = self._now()
        self._paused_in_wait = 0.0

    def wait_ends(self) -> None:
        """The batch is here."""
        self._waited += self._now() - self._wait_began - self._paused_in_wait

    def pause(self) -> None:
        """From here time counts as neither work nor waiting; pauses nest."""
        self._pauses += 1
        if self._pauses == 1:
            self._pause_began = self._now()

    def resume(self) -> None:
        """End a pause."""
        self._pauses -= 1
        if self._pauses == 0:
            length = self._now() - self._pause_began
            self._paused += length
            self._paused_in_wait += length

    def span(self) -> tuple[float, float]:
        """Seconds since `restart` without pauses, and those of them spent waiting."""
        return self._now() - self._began - self._paused, self._waited


class Meter(L.Callback):
    """Measures training and hands each logged step's figures to the loggers and to whoever shows them.

    Optimizer steps count, not batches. A figure is made every `trainer.log_every_n_steps` steps and at the last
    one. Put it before the other callbacks: what they do in a step's hooks counts as work, or as waiting where it
    comes between steps, unless they do it within `paused`. It reads `step_loss()`, `grad_norm` and `val_loss` of
    the module.

    Args:
        tokens_per_step: of a global batch, those that count in the speed: `TokenCounts.counted` a sample.
        bytes_per_token: of the corpus; None where bits per byte say nothing.
        flops_per_token: the model's own, forward and backward.
        peak_flops: of one device in the training precision; measured when training starts if None.
        observers: who shows the figures.
        now: tells the time in seconds.
    """

    def __init__(
        self,
        tokens_per_step: int,
        bytes_per_token: float | None,
        flops_per_token: float,
        peak_flops: float | None = None,
        observers: Sequence[Observer] = (),
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.tokens_per_step = tokens_per_step
        self.bytes_per_token = bytes_per_token
        self.flops_per_token = flops_per_token
        self.peak_flops = peak_flops
        self.observers = observers
        self._now = now
        self._clock = Clock(now)
        self._step = self._window_step = self._run_step = 0
        self._run_began = 0.0
        self._warm = False
        self._lr = math.nan

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within (saving, sampling) doesn't count in the speed."""
        self._clock.pause()
        try:
            yield
        finally:
            self._clock.resume()

    def bits_per_byte(self, loss: float) -> float | None:
        """Nats per token as bits per byte of text, where they can be."""
        return None if self.bytes_per_token is None else loss / math.log(2) / self.bytes_per_token

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Learn the peak and start the clock."""
        if self.peak_flops is None:
            self.peak_flops = peak_flops(pl_module.device, compute_dtype(str(trainer.precision)))
        self._step = trainer.global_step
        self._warm = False
        self._clock = Clock(self._now)
        self._begin_run()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note that the batch has come, and the rate that its step takes."""
        self._clock.wait_ends()
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Make the figures where a step that is logged has ended."""
        step = trainer.global_step
        if step != self._step:
            self._step = step
            every = trainer.log_every_n_steps  # type: ignore[attr-defined]
            if step % max(every, 1) == 0 or step == trainer.max_steps:
                self._publish(trainer, pl_module)
            elif not self._warm:
                # The first step compiles and allocates: a speed that includes it says nothing about the rest.
                self._begin_run()
            self._warm = True
        self._clock.wait_begins()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._clock.pause()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hand the validation's figures on and let the clock go on."""
        self._clock.resume()
        if trainer.sanity_checking:
            return
        loss, step = float(pl_module.val_loss), trainer.global_step  # type: ignore[arg-type]
        bits = self.bits_per_byte(loss)
        self._log(trainer, {"val/loss": loss, **_if_known("val/bits_per_byte", bits)}, step)
        for observer in self.observers:
            observer.show_validation(step, loss, bits)

    def _begin_run(self) -> None:
        self._run_step = self._window_step = self._step
        self._run_began = self._now()
        self._clock.restart()

    def _publish(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Asking for the loss waits for the device, so it comes before the clock is read.
        loss: float = pl_module.step_loss()  # type: ignore[operator]
        metrics = self._measure(trainer, loss, float(pl_module.grad_norm))  # type: ignore[arg-type]
        # The next span begins here, so that what the loggers and observers take counts in its speed.
        self._window_step = self._step
        self._clock.restart()
        self._log(trainer, metrics.logged(), metrics.step)
        for observer in self.observers:
            observer.show_step(metrics)

    def _measure(self, trainer: L.Trainer, loss: float, grad_norm: float) -> StepMetrics:
        seconds, waited = self._clock.span()
        speed = (self._step - self._window_step) * self.tokens_per_step / seconds
        total = trainer.max_steps if trainer.max_steps > 0 else None
        pace = (self._now() - self._run_began) / max(self._step - self._run_step, 1)
        return StepMetrics(
            step=self._step,
            total_steps=total,
            tokens=self._step * self.tokens_per_step,
            loss=loss,
            bits_per_byte=self.bits_per_byte(loss),
            lr=self._lr,
            grad_norm=grad_norm,
            tokens_per_second=speed,
            mfu=speed * self.flops_per_token / ((self.peak_flops or math.nan) * trainer.world_size),
            data_wait=waited / seconds,
            seconds_left=None if total is None else (total - self._step) * pace,
        )

    def _log(self, trainer: L.Trainer, metrics: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)


def _if_known(name: str, figure: float | None) -> dict[str, float]:
    return {} if figure is None else {name: figure}
