"""When a run is saved, how it is restored, and how it stops when asked to."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from safetensors import SafetensorError
from torch import nn

from llm.config.schema import CheckpointConfig
from llm.data import CorpusDataModule
from llm.errors import CheckpointError
from llm.train import checkpoint
from llm.train.checkpoint import CheckpointWriter, TrainingState
from llm.train.metrics import Pause
from llm.train.run import Run, now
from llm.train.sharding import is_sharded
from llm.train.strategies import ZeroStrategy
from llm.train.zero import ZeroState


class Interrupted(Exception):
    """Training was asked to stop by a signal and has saved."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"{signal.Signals(signum).name} at step {step}")
        self.exit_code = 128 + signum
        self.step = step


class StopRequest:
    """Notes SIGINT and SIGTERM, so that training can end at a step's edge; a second SIGINT ends it at once.

    `signum` is the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Any] = {}

    def listen(self) -> None:
        """Take over both signals; again where somebody else did in between."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous.setdefault(signum, signal.signal(signum, self._note))

    def restore(self) -> None:
        """Give the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum


class Checkpointer(L.Callback):
    """Saves every n-th step, the last, and when asked to stop; restores before training goes on.

    A step is saved at the start of the next one, when its validation, samples and metrics are done.

    Args:
        run: the folder to save in.
        model: what is saved and restored, beside its optimizer.
        data: told where to go on.
        about: what each manifest states beside step and samples (model, tokenizer, ...).
        resume_from: the checkpoint to restore, if any.
        pause: what saving happens within, so that it does not count in the speed.
        stop: notes the signals that ask for an end.
        settings: when to save, and what to keep.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        data: CorpusDataModule,
        about: checkpoint.Manifest,
        resume_from: Path | None,
        pause: Pause,
        stop: StopRequest,
        settings: CheckpointConfig,
    ) -> None:
        self.run = run
        self.model = model
        self.data = data
        self.about = about
        self.resume_from = resume_from
        self.pause = pause
        self.settings = settings
        self.best: dict[str, Any] | None = None
        self.saved_step = self._first_step = 0
        self._stop = stop

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore weights, optimizer, step count and data position."""
        if self.resume_from is None:
            return
        # Rank 0 has just checked every file: a thousand ranks need not read them all.
        manifest = checkpoint.read_manifest(self.resume_from)
        self._state(trainer).restore(self.resume_from)
        self.saved_step = self._first_step = manifest["step"]
        self.best = manifest["best"]
        self.data.consumed = manifest["samples"]
        set_step(trainer, manifest["step"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore this rank's random state, last, since building the loaders may have drawn numbers."""
        self._stop.listen()
        if self.resume_from is not None:
            path = self.resume_from / checkpoint.rng_file(trainer.global_rank)
            if path.exists():
                checkpoint.set_random_state(checkpoint.load_tensors(path))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the step just done if it is due, and stop if asked to."""
        step = trainer.global_step
        if batch_idx % trainer.accumulate_grad_batches:
            return
        stopping = self._stop_agreed(trainer)
        if step > self.saved_step and (stopping or step % self.settings.every_n_steps == 0):
            self.save(trainer)
        if stopping:
            raise Interrupted(self._stop.signum or signal.SIGTERM, step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember the best validation loss, and save its step."""
        step, loss = trainer.global_step, pl_module.val_loss
        if trainer.sanity_checking or not self.settings.keep_best or loss != loss:
            return
        if self.best and self.best["val/loss"] <= loss:
            return
        self.best = {"step": step, "val/loss": loss}
        self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last step."""
        if trainer.global_step > self.saved_step:
            self.save(trainer)

    def _consumed(self, step: int) -> int:
        """Samples that have gone into the model: those before this session, and a global batch a step since."""
        return self.data.consumed + (step - self._first_step) * self.data.batch_size

    def _stop_agreed(self, trainer: L.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._stop.signum != 0, all=False)

    def save(self, trainer: L.Trainer) -> None:
        """Write this step's checkpoint; every rank must call it.

        Raises:
            CheckpointError: it could not be written on some rank; the earlier checkpoints stand.
        """
        with self.pause():
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        step = trainer.global_step
        writer = CheckpointWriter(self.run.checkpoints, step)
        if trainer.is_global_zero:
            writer.discard()
        trainer.strategy.barrier("checkpoint")
        self._on_every_rank(trainer, writer, lambda: writer.write(self._files(trainer)))
        if is_sharded(self.model):
            self._on_every_rank(trainer, writer, lambda: writer.write_shards(self._state(trainer).tensors()))
        about = {
            **self.about,
            "step": step,
            "samples": self._consumed(step),
            "world_size": trainer.world_size,
            "best": self.best,
            "saved": now(),
        }
        self._on_every_rank(trainer, writer, lambda: trainer.is_global_zero and writer.publish(about))
        self.saved_step = step
        if trainer.is_global_zero:
            self._retain()

    def _files(self, trainer: L.Trainer) -> dict[str, dict[str, torch.Tensor]]:
        files = {checkpoint.rng_file(trainer.global_rank): checkpoint.random_state()}
        if trainer.is_global_zero and not is_sharded(self.model):
            tensors = self._state(trainer).tensors()
            files |= {f"{kind}.safetensors": those for kind, those in tensors.items()}
        return files

    def _state(self, trainer: L.Trainer) -> TrainingState | ZeroState:
        if isinstance(trainer.strategy, ZeroStrategy):
            return trainer.strategy.state
        return TrainingState(self.model, trainer.optimizers[0])

    def _on_every_rank(self, trainer: L.Trainer, writer: CheckpointWriter, work: Callable[[], Any]) -> None:
        """Do `work`; if it fails on any rank, all ranks drop the checkpoint and raise together."""
        error: Exception | None = None
        try:
            work()
        except (OSError, SafetensorError) as caught:
            error = caught
        if trainer.strategy.reduce_boolean_decision(error is None, all=True):
            return
        if trainer.is_global_zero:
            writer.discard()
        kept = [folder.name for folder in checkpoint.folders(self.run.checkpoints)]
        raise CheckpointError(
            f"The checkpoint of step {trainer.global_step} could not be written to {self.run.checkpoints}: "
            f"{error or 'another process reports the error'}. Nothing saved before was touched "
            f"({kept[0] if kept else 'no checkpoint'} is the newest). Make room there, then run the same command again."
        ) from error

    def _retain(self) -> None:
        kept = self.settings
        best = self.best["step"] if self.best and kept.keep_best else None
        going = checkpoint.expendable(self.run.checkpoints, kept.keep_last, kept.keep_every_n_steps, best)
        for folder in list(going):
            checkpoint.remove(folder)


def set_step(trainer: L.Trainer, step: int) -> None:
    """Make Lightning's loops count from `step`, as if this process had done the steps before."""
    loop = trainer.fit_loop.epoch_loop
    batches = step * trainer.accumulate_grad_batches
    for count in ("ready", "started", "processed", "completed"):
        setattr(loop.batch_progress.total, count, batches)
    optimizer_total = loop.automatic_optimization.optim_progress.optimizer.step.total
    optimizer_total.ready = optimizer_total.completed = step
    loop.scheduler_progress.total.ready = loop.scheduler_progress.total.completed = step
    loop._batches_that_stepped = step
    for config in trainer.lr_scheduler_configs:
        set_schedule_step(config.scheduler, step)


def set_schedule_step(scheduler: Any, step: int) -> None:
    """Put a LambdaLR where `step` calls of its `step` would have put it, from the config's learning rates."""
    scheduler.last_epoch = scheduler._step_count = step
    rates = [base * f(step) for base, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
