"""One training step on tensors without storage: what lives at its peak, and what each process sends."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from llm.data.collate import Batch, Work
from llm.model import ModelConfig, Transformer
from llm.objective import Loss
from llm.plan.layout import Layout
from llm.plan.ledger import KINDS, Ledger, Memory
from llm.train.parallel import blocks, local

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]


@dataclass(frozen=True)
class TrainingStep:
    """What a training step is made of.

    Args:
        model: gives the model of a shape, without storage.
        shape: the model's.
        layout: how it lies over processes.
        objective: scores a batch by the model.
        optimizer: makes the optimizer of named parameters.
        precision: Lightning's name of it.
        work: what a sample takes.
        micro_batch_size: sequences in a forward pass.
        accumulation: forward passes of a process in a step.
        period: after how many blocks the next ones keep for the backward pass what those before them kept.
    """

    model: Callable[[ModelConfig], Transformer]
    shape: ModelConfig
    layout: Layout
    objective: Callable[[nn.Module, Batch], Loss]
    optimizer: OptimizerFactory
    precision: str
    work: Work
    micro_batch_size: int
    accumulation: int = 1
    period: int = 1

    @property
    def dtype(self) -> torch.dtype:
        """What weights are kept in."""
        return parameter_dtype(self.precision)


@dataclass(frozen=True)
class Trace:
    """What a step was seen to take.

    Args:
        peaks: the most that lived at each moment.
        sent: bytes that a process sends in a micro-batch, by the parallelism (data, tensor) that wants it.
    """

    peaks: Mapping[str, Memory]
    sent: Mapping[str, float]

    @property
    def moment(self) -> str:
        """When the most lives: what runs, and in which block, counted from the end where below zero."""
        return max(self.peaks, key=lambda moment: self.peaks[moment].total)

    @property
    def peak(self) -> Memory:
        """What lives then."""
        return self.peaks[self.moment]


def whole_context(shape: ModelConfig) -> Work:
    """What a sample takes that fills the context, and the source's where there is one."""
    length = float(shape.context_length)
    return Work(length, length, length, length if shape.architecture == "encoder_decoder" else 0.0)


def parameter_dtype(precision: str) -> torch.dtype:
    """What Lightning's `precision` keeps weights in."""
    if precision.startswith("64"):
        return torch.float64
    return torch.bfloat16 if precision == "bf16-true" else torch.float32


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make floating-point tensors `dtype` where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def trace(step: TrainingStep) -> Trace:
    """Trace a step; blocks are alike, so that of a deep model two shallower ones are traced and the rest is counted.

    What a block more takes is the same at each end of the stack, wherever the peak may be.
    """
    shape, period = step.shape, step.period
    few = 2 * (period + 1)
    few += (shape.n_layers - few) % period
    if shape.n_layers <= few + period or shape.architecture == "encoder_decoder":
        return trace_all(step)
    less, more = (trace_all(_of_depth(step, few + extra)) for extra in (0, period))
    return _continued(less, more, few, step)


def _of_depth(step: TrainingStep, n_layers: int) -> TrainingStep:
    return dataclasses.replace(step, shape=dataclasses.replace(step.shape, n_layers=n_layers))


def _continued(less: Trace, more: Trace, few: int, step: TrainingStep) -> Trace:
    """The trace of all layers, on the line through those of `few` and of a period more."""
    n_layers, period, ends = step.shape.n_layers, step.period, step.period + 1
    times = (n_layers - few) / period
    near, far = (_by_end(one.peaks, few + extra, ends) for one, extra in ((less, 0), (more, period)))
    peaks = {moment: _line(near[moment], far[moment], times) for moment in near if moment in far}
    sent = {what: less.sent[what] + times * (more.sent[what] - less.sent[what]) for what in less.sent}
    return Trace(peaks, sent)


def _by_end(peaks: Mapping[str, Memory], n_layers: int, ends: int) -> dict[str, Memory]:
    """The peaks at the blocks of both ends, those of the far end counted from there."""
    named = {}
    for moment, memory in peaks.items():
        what, _, index = moment.partition(" ")
        if index and int(index) >= n_layers - ends:
            named[f"{what} {int(index) - n_layers}"] = memory
        elif not index or int(index) < ends:
            named[moment] = memory
    return named


def _line(near: Memory, far: Memory, times: float) -> Memory:
    return Memory(
        **{
            kind: round(getattr(near, kind) + times * (getattr(far, kind) - getattr(near, kind)))
            for kind in KINDS
        }
    )


def trace_all(step: TrainingStep) -> Trace:
    """Trace every block of a step."""
    with step.layout.processes() as meshes, default_dtype(step.dtype):
        net = step.model(step.shape)
        step.layout.split(net, meshes, step.precision)
        # Only now, since FSDP2 takes every parameter apart into as many pieces as there are processes.
        with FakeTensorMode(allow_non_fake_inputs=True), Ledger() as ledger:
            _give_storage(net)
            ledger.mark(map(local, net.parameters()), "weights")
            _follow(net, ledger)
            _Training(step, net, ledger).run()
        turns = min(step.accumulation, 2)
        return Trace(dict(ledger.peaks), {what: size / turns for what, size in ledger.sent.items()})


def _give_storage(net: nn.Module) -> None:
    """What `to_empty` does; it can't exchange parameters that are to stay without values."""
    for module in net.modules():
        for named in (module._parameters, module._buffers):
            for name, tensor in named.items():
                if tensor is not None:
                    placed = torch.empty_like(tensor.detach(), device="cpu")
                    if isinstance(tensor, nn.Parameter):
                        placed = nn.Parameter(placed, requires_grad=tensor.requires_grad)
                    named[name] = placed  # type: ignore[assignment]


def _follow(net: Transformer, ledger: Ledger) -> None:
    """Let the ledger know which block runs, forward and backward, and when the head does."""
    for index, block in enumerate(blocks(net)):
        _at(ledger, block.register_forward_pre_hook, "activations", f"forward {index}")
        _at_gradient(ledger, block, "activations", f"backward {index}")
    _at(ledger, net.stack.register_forward_hook, "logits", "head")
    _at_gradient(ledger, net.stack, "activations", "backward")
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: ledger.mark([local(p.grad)], "gradients"))


def _at(ledger: Ledger, register: Callable[..., Any], kind: str, moment: str) -> None:
    register(lambda *_: ledger.at(kind, moment))


def _at_gradient(ledger: Ledger, module: nn.Module, kind: str, moment: str) -> None:
    """Note the moment at which the gradient of a module's result is there."""

    def follow(module: nn.Module, args: Any, result: Tensor) -> None:
        if result.requires_grad:
            result.register_hook(lambda gradient: ledger.at(kind, moment))

    module.register_forward_hook(follow)


class _Training:
    """Two steps in the order in which Lightning takes them; the second, with all state there, is what counts."""

    def __init__(self, step: TrainingStep, net: Transformer, ledger: Ledger) -> None:
        self.step, self.net, self.ledger = step, net, ledger
        self.parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self.optimizer = step.optimizer(net.named_parameters())
        self.turns = min(step.accumulation, 2)
        self.bucket: Tensor | None = None
        self.is_last = False
        places = accumulate((p.numel() for p in self.parameters), initial=0)
        for place, parameter in zip(places, self.parameters, strict=False):
            parameter.register_post_accumulate_grad_hook(partial(self._into_bucket, place))

    def run(self) -> None:
        """Take both steps."""
        self.ledger.at("buffers", "batch")
        batch = self._batch()
        for _ in range(2):
            self.ledger.forget_peaks()
            self._begin()
            for turn in range(self.turns):
                self._pass(batch, first=turn == 0, last=turn == self.turns - 1)
            self._update()

    def _batch(self) -> Batch:
        b, work = self.step.micro_batch_size, self.step.work

        def ids(length: float) -> Tensor:
            return torch.zeros(b, round(length), dtype=torch.long)

        return Batch(
            tokens_bt=ids(work.written),
            targets_bk=ids(work.scored),
            ids=torch.zeros(b, dtype=torch.long),
            positions_bk=None if work.scored == work.written else ids(work.scored),
            source_bs=ids(work.read) if work.read else None,
        )

    def _begin(self) -> None:
        """Make DDP's buckets, which stay: gradients lie in them."""
        if self.step.layout.strategy == "ddp" and self.bucket is None:
            size = sum(p.numel() for p in self.parameters)
            self.bucket = torch.empty(size, dtype=self.parameters[0].dtype)
            self.ledger.mark([self.bucket], "gradients")

    def _pass(self, batch: Batch, first: bool, last: bool) -> None:
        self.is_last = last
        self.ledger.at("activations", "embedding")
        with self.step.layout.autocast(self.step.precision):
            loss = self.step.objective(self.net, batch).mean
        if first:
            # Lightning forgets the last step's gradients behind the next one's forward pass.
            self.optimizer.zero_grad()
        self.ledger.at("logits", "loss")
        loss.backward()

    def _into_bucket(self, place: int, parameter: Tensor) -> None:
        """Let DDP's bucket hold a gradient once it goes to the other processes."""
        if self.bucket is not None and self.is_last:
            parameter.grad = self.bucket[place : place + parameter.numel()].view_as(parameter)

    def _update(self) -> None:
        self.ledger.at("buffers", "update")
        self.optimizer.step()
        states = (value for state in self.optimizer.state.values() for value in state.values())
        self.ledger.mark((local(value) for value in states if isinstance(value, Tensor)), "optimizer")
