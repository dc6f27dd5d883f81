"""One training step on tensors without storage: what lives at its peak, and what each process sends."""

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from llm.data.collators.base import Batch, TokenCounts
from llm.malloc import is_kept
from llm.model import ModelConfig, Transformer
from llm.objective import Loss
from llm.plan.attention import attention_of
from llm.plan.gathering import gathered
from llm.plan.heap import Heap
from llm.plan.layout import Layout
from llm.plan.ledger import KINDS, Ledger, Memory
from llm.plan.replica import Buckets, Replica
from llm.plan.zero import WholeWeights, ZeroShares, frozen_copies
from llm.train.hardware import largest_tensor
from llm.train.memory import MEASURED_STEPS
from llm.train.optimizers import OptimizerFactory
from llm.train.precision import compute_dtype, is_mixed, parameter_dtype
from llm.train.sharding import blocks, local


@dataclass(frozen=True)
class TrainingStep:
    """What a training step is made of.

    Args:
        model: gives the model of a config, without storage.
        model_config: the model's.
        layout: how it lies over processes.
        objective: scores a batch by the model.
        optimizer: makes the optimizer of named parameters.
        precision: Lightning's name of it.
        work: the tokens of the average sample.
        batches: gives micro-batches of so many sequences in the order in which they come, of whose values nothing depends.
        micro_batch_size: sequences in a forward pass.
        accumulation: forward passes of a process in a step.
        pattern_length: blocks after which activation checkpointing and local/global attention repeat.
        steps: how many are traced where there is a heap, which grows on behind the first two.
    """

    model: Callable[[ModelConfig], Transformer]
    model_config: ModelConfig
    layout: Layout
    objective: Callable[[nn.Module, Batch], Loss]
    optimizer: OptimizerFactory
    precision: str
    work: TokenCounts
    batches: Callable[[int], Iterable[Batch]]
    micro_batch_size: int
    accumulation: int = 1
    pattern_length: int = 1
    steps: int = MEASURED_STEPS

    @property
    def dtype(self) -> torch.dtype:
        """What weights are kept in; those of ZeRO's first stages in half precision, beside the shares in float32."""
        return compute_dtype(self.precision) if self.is_rounded else parameter_dtype(self.precision)

    @property
    def is_rounded(self) -> bool:
        """Whether ZeRO's first stages keep weights in less than what checkpoints have of them."""
        return self.layout.parallelism.zero_stage in (1, 2) and is_mixed(self.precision)

    @property
    def is_full_precision(self) -> bool:
        """Whether matrix products are in float32, as ZeRO's third stage has them in a mixed precision too."""
        return self.precision == "32-true" or (
            self.layout.parallelism.zero_stage == 3 and "mixed" in self.precision
        )

    @property
    def keeps_freed(self) -> bool:
        """Whether training on a CPU keeps what it frees."""
        return is_kept(largest_tensor(self.model_config, self.micro_batch_size))

    @property
    def traced_micro_batches(self) -> int:
        """How many micro-batches of a step are traced: from the second on all are alike."""
        return min(self.accumulation, 2)


@dataclass(frozen=True)
class Trace:
    """What a step was seen to take.

    Args:
        peaks: the most that lived at each moment.
        sent: bytes that a process sends in a micro-batch, by the parallelism (data, tensor) that wants it.
        sent_once: bytes that it sends once a step.
        gaps: bytes that a CPU's allocator holds between tensors.
    """

    peaks: Mapping[str, Memory]
    sent: Mapping[str, float]
    sent_once: Mapping[str, float] = field(default_factory=dict)
    gaps: int = 0

    @property
    def moment(self) -> str:
        """When the most lives: what runs, and in which block, counted from the end where below zero."""
        return max(self.peaks, key=lambda moment: self.peaks[moment].total)

    @property
    def peak(self) -> Memory:
        """What lives then, and what lies between."""
        return dataclasses.replace(self.peaks[self.moment], gaps=self.gaps)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make floating-point tensors `dtype` where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def uncollected() -> Iterator[None]:
    """Let go of tensors by their last reference alone: when cycles are found depends on all that ran before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def trace(step: TrainingStep, seconds: float = math.inf) -> Trace:
    """Trace a step; blocks are alike, so that of a deep model two shallower ones are traced and the rest is counted.

    What a block more takes is the same at each end of the stack, wherever the peak may be.

    Raises:
        TimeoutError: it takes more than `seconds`.
    """
    deadline = time.monotonic() + seconds
    model_config, length = step.model_config, step.pattern_length
    shallow = 2 * (length + 1)
    shallow += (model_config.n_layers - shallow) % length
    # Two shallow ones would take as long.
    if model_config.n_layers <= 2 * shallow + length or model_config.architecture == "encoder_decoder":
        return trace_all(step, deadline)
    depths = (_of_depth(step, shallow + extra) for extra in (0, length))
    less, more = (trace_all(one, deadline, gathers=False) for one in depths)
    traced = _extrapolated(less, more, shallow, step)
    return _with_gathered(traced, step, deadline) if step.layout.parallelism.zero_stage == 3 else traced


def _with_gathered(traced: Trace, step: TrainingStep, deadline: float) -> Trace:
    """With what stage 3 gathers of all layers, which is on no line: it keeps and fetches so many values at a time."""
    with default_dtype(step.dtype):
        held, sent = gathered(step.model(step.model_config), step.layout, deadline)

    def at(moment: str) -> int:
        what, _, index = moment.partition(" ")
        return held[f"{what} {int(index) % step.model_config.n_layers}" if index else what].buffers

    return dataclasses.replace(
        traced,
        peaks={
            moment: dataclasses.replace(memory, buffers=memory.buffers + at(moment))
            for moment, memory in traced.peaks.items()
        },
        sent={**traced.sent, "data": traced.sent["data"] + sent},
    )


def _of_depth(step: TrainingStep, n_layers: int) -> TrainingStep:
    return dataclasses.replace(step, model_config=dataclasses.replace(step.model_config, n_layers=n_layers))


def _extrapolated(less: Trace, more: Trace, shallow: int, step: TrainingStep) -> Trace:
    """The trace of all layers, on the line through those of `shallow` layers and of a pattern more."""
    length, ends = step.pattern_length, step.pattern_length + 1
    times = (step.model_config.n_layers - shallow) / length
    near, far = (_by_end(one.peaks, shallow + extra, ends) for one, extra in ((less, 0), (more, length)))
    peaks = {moment: _line(near[moment], far[moment], times) for moment in near if moment in far}
    sent, once = (
        {what: size + times * (two[what] - size) for what, size in one.items()}
        for one, two in ((less.sent, more.sent), (less.sent_once, more.sent_once))
    )
    traced = Trace(peaks, sent, once)
    # Where tensors find a place is on no line: of the same tensors as much lies between them.
    return dataclasses.replace(traced, gaps=round(traced.peak.tensors * more.gaps / more.peak.tensors))


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


def trace_all(step: TrainingStep, deadline: float = math.inf, gathers: bool = True) -> Trace:
    """Trace every block of a step, with what ZeRO's stage 3 gathers or without.

    Raises:
        TimeoutError: the monotonic clock went past the deadline.
    """
    attention = attention_of(step.layout.accelerator)
    with step.layout.processes() as meshes, default_dtype(step.dtype), attention:
        net = step.model(step.model_config)
        step.layout.split(net, meshes, step.precision)
        # Only now, since FSDP2 takes every parameter apart into as many pieces as there are processes.
        heap = Heap(step.keeps_freed) if step.layout.accelerator == "cpu" else None
        with uncollected(), FakeTensorMode(allow_non_fake_inputs=True), Ledger(heap, deadline) as ledger:
            _give_storage(net)
            ledger.mark(map(local, net.parameters()), "weights")
            _follow(net, ledger)
            training = _Training(step, net, ledger, gathers)
            training.run()
            gaps = ledger.gaps  # before what lasts is let go
        sent = {what: size / step.traced_micro_batches for what, size in ledger.sent.items()}
        return Trace(dict(ledger.peaks), sent, dict(ledger.sent_once), gaps)


def _give_storage(net: nn.Module) -> None:
    """What `to_empty` does; it can't exchange parameters that are to stay without values."""
    for module in net.modules():
        for named in (module._parameters, module._buffers):
            for name, tensor in named.items():
                if tensor is not None:
                    placed = torch.empty_like(tensor.detach(), device="cpu")
                    if isinstance(tensor, nn.Parameter):
                        placed = nn.Parameter(placed, tensor.requires_grad)
                    named[name] = placed  # type: ignore[assignment]


def _follow(net: Transformer, ledger: Ledger) -> None:
    """Let the ledger know which block runs, forward and backward, and when the head does."""
    for index, block in enumerate(blocks(net)):
        _at(ledger, block.register_forward_pre_hook, "activations", f"forward {index}")
        _at_gradient(ledger, block, "activations", f"backward {index}")
    _at(ledger, net.stack.register_forward_hook, "logits", "head")
    _at_gradient(ledger, net.stack, "activations", "backward")
    for parameter in (p for p in net.parameters() if p.requires_grad):
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
    """Steps in the order in which Lightning takes them; from the second on all state is there."""

    def __init__(self, step: TrainingStep, net: Transformer, ledger: Ledger, gathers: bool) -> None:
        self.step, self.net, self.ledger = step, net, ledger
        self.replica = replica_of(step.layout)(net, step.optimizer, step.layout, ledger)
        if isinstance(self.replica, ZeroShares) and gathers:
            self.replica.gather_weights(net)
        wide = parameter_dtype(step.precision)
        self.frozen = frozen_copies(net, wide, step.layout, ledger) if step.is_rounded else []

    def run(self) -> None:
        """Take two steps, or as many as are wanted of a heap."""
        self.ledger.at("buffers", "batch")
        self.ledger.forget_peaks()
        batches = iter(self.step.batches(self.step.micro_batch_size))
        for _ in range(2 if self.ledger.heap is None else self.step.steps):
            self.ledger.forget_sent()
            self.replica.begin()
            last = self.step.traced_micro_batches - 1
            for index in range(self.step.traced_micro_batches):
                self._pass(next(batches), is_last=index == last)
            self.ledger.at("buffers", "update")
            self.replica.update()

    def _pass(self, batch: Batch, is_last: bool) -> None:
        self.ledger.at("activations", "embedding")
        self.replica.forward()
        with self.step.layout.autocast(self.step.precision):
            loss = self.step.objective(self.net, batch).mean
        self.replica.backward(is_last)
        self.ledger.at("logits", "loss")
        loss.backward()
        self.replica.close()


def replica_of(layout: Layout) -> type[Replica]:
    """What a process does under a strategy beside its passes."""
    if layout.parallelism.zero_stage:
        return ZeroShares if layout.parallelism.zero_stage == 3 else WholeWeights
    return Buckets if layout.parallelism.averages else Replica
