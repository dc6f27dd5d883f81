"""The LightningModule: one transformer, one objective, and what an optimizer step does with their gradients."""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from llm.data.collators.base import Batch
from llm.errors import TrainingError
from llm.model import Transformer
from llm.objective import Loss, Rows
from llm.train.optimizers import OptimizerFactory
from llm.train.sharding import blocks, clip_by_global_norm, release

Objective = Callable[[nn.Module, Batch], Loss]
Schedule = Callable[[int], float]
Initialise = Callable[[Transformer], None]


# What is assigned in each step, and is neither a parameter nor a module.
PLAIN = {"_current_fx_name", "grad_norm", "row_losses", "_losses", "_pending"}


class LanguageModule(L.LightningModule):
    """A transformer in training.

    Args:
        model: the network, with storage or without; everything else about training stays outside it.
        objective: scores a batch by the model.
        optimizer: makes the optimizer of the model's named parameters.
        schedule: the learning rate's multiplier at each optimizer step, counted from 0.
        initialise: gives a model its first values, however it is laid out.
        compile: whether model and objective run as one compiled graph in training.
    """

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        initialise: Initialise,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.initialise = initialise
        self.compiled_objective: Objective = torch.compile(objective) if compile else objective
        self.grad_norm = math.nan
        self.val_loss = math.nan
        self.row_losses: Rows | None = None
        self._losses: tuple[Tensor, ...] = ()
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._val_total = self._val_count = 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        # torch looks through parameters and modules at each assignment. Lightning notes before and after each hook which
        # one runs, some fifty times a step: a fifth of a millisecond.
        if name in PLAIN:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_model(self) -> None:
        """Give a model without storage its place and first values; a strategy that splits it has done so by now."""
        if any(parameter.is_meta for parameter in self.model.parameters()):
            self.model.to_empty(device=self.trainer.strategy.root_device)
            self.initialise(self.model)

    def compile_blocks(self) -> None:
        """Where all was to be one compiled graph, compile each block instead, so that gathering stands between them."""
        if self.compiled_objective is not self.objective:
            self.compiled_objective = self.objective
            for block in blocks(self.model):
                block.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of one micro-batch, in nats per target."""
        loss = self.compiled_objective(self.model, batch)
        self._pending.append((loss.mean.detach(), batch.indices_b))
        self.row_losses = _detached(loss.rows)
        return loss.mean

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by global norm and stop before an update that is not finite; Lightning calls this once a step."""
        if hasattr(optimizer, "clip_grad"):
            # DeepSpeed's clips by itself; its strategy then calls `finish_step`.
            return
        # The optimizer's own lists: walking the modules for them takes a sixth of a millisecond each step.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.finish_step(optimizer, clip_by_global_norm(parameters, gradient_clip_val or math.inf))

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Update, and let go of the gradients.

        Lightning would keep them until the next forward pass is through, beside all that it makes: at 124 million
        parameters half a gigabyte more at the peak (benchmarks/throughput.md).
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        # DeepSpeed's strategy comes here with every micro-batch.
        if not self.has_pending_gradients:
            optimizer.zero_grad()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Nothing: `optimizer_step` has done it."""

    @property
    def has_pending_gradients(self) -> bool:
        """Whether there are gradients of micro-batches whose update hasn't come yet."""
        return bool(self._pending)

    def finish_step(self, optimizer: Optimizer, grad_norm: float) -> None:
        """Record the losses and the gradients' norm of a step that is about to update.

        Raises:
            TrainingError: the norm is not finite.
        """
        self.grad_norm = grad_norm
        self._losses, numbers = zip(*self._pending, strict=True)
        self._pending = []
        if not math.isfinite(self.grad_norm):
            raise TrainingError(
                f"The gradient of step {self.trainer.global_step + 1} is not finite (loss {self._mean_loss().item()}, "
                f"gradient norm {self.grad_norm}, lr {optimizer.param_groups[0]['lr']:.3g}). The update was not "
                f"made. Its samples: {torch.cat(numbers).tolist()}. Try a smaller optimizer.lr, a longer "
                "schedule.warmup_steps, trainer.gradient_clip_val=1 or trainer.precision=32-true."
            )

    def step_loss(self) -> float:
        """The last optimizer step's loss over the global batch: all micro-batches and all ranks, nats per target.

        A collective call: every rank must make it.
        """
        return float(self.trainer.strategy.reduce(self._mean_loss(), reduce_op="mean"))

    def _mean_loss(self) -> Tensor:
        """The last optimizer step's loss over this rank's micro-batches; asked for where it is shown alone."""
        return torch.stack(self._losses).mean()

    def on_validation_epoch_start(self) -> None:
        """Begin a new sum."""
        self._val_total = self._val_count = 0.0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the sum, scored as in training but without dropout."""
        loss = self.objective(self.model, batch)
        self._val_total += loss.total.item()
        self._val_count += loss.n_targets.item()
        self.row_losses = _detached(loss.rows)

    def on_validation_epoch_end(self) -> None:
        """Make `val_loss` the mean over every target of every rank."""
        release(self.model)
        # float64 counts beyond 2**24 exactly; Apple's devices have none.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor([self._val_total, self._val_count], device=self.device, dtype=dtype)
        total, count = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        self.val_loss = total / count
        # For callbacks such as EarlyStopping; metrics.csv has its own way.
        self.log("val/loss", self.val_loss, logger=False)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """The optimizer over named parameters and the schedule, stepped once an update."""
        optimizer = self.optimizer_factory(self.model.named_parameters())
        scheduler = LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _detached(rows: Rows | None) -> Rows | None:
    return None if rows is None else Rows(rows.nats_b.detach(), rows.targets_b)
