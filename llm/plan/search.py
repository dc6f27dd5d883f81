"""Other ways to lay out the same training: which of them fit, and which is the fastest."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch

from llm.errors import ConfigError
from llm.plan.hardware import Hardware
from llm.plan.time import Pace, pace, step_flops, twice_flops
from llm.plan.trace import Trace, TrainingStep, default_dtype, trace
from llm.train.activation_checkpointing import Checkpointing
from llm.train.parallelism import STRATEGIES, TENSOR_PARALLEL, Parallelism

TENSOR_SIZES = (2, 4, 8, 16)
CHECKPOINTINGS: tuple[Checkpointing, ...] = (None, "selective", 1)
ENOUGH = 3  # ways to make it fit
WORTH = 0.01  # of a step: what isn't faster by as much is no reason to change


@dataclass(frozen=True)
class Choice:
    """What may differ between two commands that train the same model on the same batches."""

    parallelism: Parallelism
    micro_batch_size: int
    activation_checkpointing: Checkpointing

    def overrides(self) -> dict[str, str]:
        """The words that say so, by their keys."""
        checkpointing = self.activation_checkpointing
        words = {
            "strategy": self.parallelism.name,
            "data.micro_batch_size": str(self.micro_batch_size),
            "activation_checkpointing": "null" if checkpointing is None else str(checkpointing),
        }
        if self.parallelism.tensor_parallel_size > 1:
            words[f"trainer.strategy.{TENSOR_PARALLEL}"] = str(self.parallelism.tensor_parallel_size)
        if self.parallelism.offload:
            words["trainer.strategy.offload"] = "true"
        return words

    def beside(self, other: "Choice") -> list[str]:
        """The words that make this of `other`."""
        before = other.overrides()
        return [f"{key}={value}" for key, value in self.overrides().items() if before.get(key) != value]


@dataclass(frozen=True)
class Planned:
    """A choice, what its step was seen to take, and how fast it is."""

    choice: Choice
    step: TrainingStep
    trace: Trace
    pace: Pace
    fits: bool


@dataclass(frozen=True)
class Planner:
    """Plans choices for one batch and one kind of device.

    Args:
        make: gives a choice's step; a ConfigError where the choice can't be.
        hardware: what it is for.
        room: bytes of a device that training may take.
        batch_size: sequences in a step, by all processes.
        peak_flops: of one device, in the precision of the command.
        float32_flops: of it in float32; None where nobody knows.
        matmul_efficiency: the share of it that matrix products reach while they run.
    """

    make: Callable[[Choice], TrainingStep]
    hardware: Hardware
    room: float
    batch_size: int
    peak_flops: float
    float32_flops: float | None
    matmul_efficiency: float

    @cache  # noqa: B019  a planner lives as long as its command
    def plan(self, choice: Choice) -> Planned:
        """Trace a choice's step.

        Raises:
            ConfigError: there is no such step.
        """
        step = self.make(choice)
        traced = trace(step)
        full = self.float32_flops if step.is_full_precision else None
        peak = full or self.peak_flops
        paced = pace(
            step,
            traced,
            self.batch_size,
            choice.activation_checkpointing,
            peak,
            self.matmul_efficiency,
            self.hardware,
        )
        return Planned(choice, step, traced, paced, traced.peak.total <= self.room)

    def ways(self, present: Choice, world_size: int) -> list[Planned]:
        """A few changes to `present` that make it fit, the smallest first; each was planned."""
        found: list[Planned] = []
        for choice in changes(present, world_size, self.hardware):
            planned = self._largest(choice)
            if planned is not None and planned.choice != present:
                found.append(planned)
            if len(found) == ENOUGH:
                break
        return found

    def fastest(self, world_size: int, present: Planned | None = None) -> Planned | None:
        """The choice of the shortest step among those that fit; `present`, where none is worth a change."""
        best = present
        for parallelism in splits(world_size, self.hardware):
            best = self._faster(parallelism, best)
        if best is None:  # what is on the host has to travel: it is tried where nothing else fits
            for parallelism in offloads(world_size):
                best = self._faster(parallelism, best)
        return best

    def _faster(self, parallelism: Parallelism, best: Planned | None) -> Planned | None:
        """The faster of `best` and what a strategy can do; of near equals, `best`, which is simpler."""
        for checkpointing in CHECKPOINTINGS:
            choice = Choice(parallelism, self.batch_size, checkpointing)
            enough = math.inf if best is None else (1 - WORTH) * best.pace.seconds
            if self._least_seconds(choice) >= enough:
                continue
            one = self._largest(choice, enough)
            if one is not None and one.pace.seconds < enough:
                best = one
            if one is not None and one.step.accumulation == 1:
                break  # to keep less would only take more time
        return best

    def _least_seconds(self, choice: Choice) -> float:
        """What a choice takes at least, known without tracing it."""
        try:
            step = self.make(choice)
        except ConfigError:
            return math.inf
        flops = step_flops(step, self.batch_size) + twice_flops(
            step, self.batch_size, choice.activation_checkpointing
        )
        return flops / (self.peak_flops * step.layout.world_size * self.matmul_efficiency)

    @cache  # noqa: B019
    def _weight_bytes(self, dtype: torch.dtype) -> int:
        """Those of all weights."""
        step = self.make(Choice(STRATEGIES["single"], 1, None))
        with default_dtype(dtype):
            return sum(parameter.nbytes for parameter in step.model(step.model_config).parameters())

    def _largest(self, choice: Choice, enough: float = math.inf) -> Planned | None:
        """The choice with the largest micro-batch that fits, up to its own.

        None where none does, it can't be, or it takes `enough` seconds whatever the micro-batch is.
        """
        try:
            step = self.make(choice)
            if step.layout.parallelism.has_whole_weights and self._weight_bytes(step.dtype) > self.room:
                return None  # known without tracing it
            per_process = self.batch_size // step.layout.data_parallel_size
            sizes = divisors(per_process, choice.micro_batch_size)
            return next((one for one in self._fitting(choice, sizes, enough)), None)
        except ConfigError:
            return None

    def _fitting(self, choice: Choice, sizes: list[int], enough: float) -> Iterator[Planned]:
        """From the largest size on that should fit by what two small ones take, those that do."""
        first = self.plan(replace(choice, micro_batch_size=sizes[0]))
        if not first.fits or first.pace.at_least >= enough:
            return
        if len(sizes) > 1:
            second = self.plan(replace(choice, micro_batch_size=sizes[1]))
            least, more = first.trace.peak.total, second.trace.peak.total
            slope = max((more - least) / (sizes[1] - sizes[0]), 1.0)
            most = sizes[0] + (self.room - least) / slope
            # The line says roughly where to look; what is given was planned.
            for size in reversed([size for size in sizes if size <= most]):
                planned = self.plan(replace(choice, micro_batch_size=size))
                if planned.fits:
                    yield planned
        yield first


def divisors(number: int, most: int) -> list[int]:
    """Those of a number that are at most `most`, sorted."""
    return [size for size in range(1, min(number, most) + 1) if number % size == 0]


def changes(present: Choice, world_size: int, hardware: Hardware) -> Iterator[Choice]:
    """Smaller micro-batches, then less kept for the backward pass, then a share of the model, then of each product."""
    for checkpointing in dict.fromkeys((present.activation_checkpointing, *CHECKPOINTINGS[1:])):
        yield replace(present, activation_checkpointing=checkpointing)
    others, own = [*splits(world_size, hardware), *offloads(world_size)], present.parallelism
    for parallelism in others[others.index(own) + 1 if own in others else 1 :]:
        for checkpointing in dict.fromkeys((present.activation_checkpointing, 1)):
            yield Choice(parallelism, present.micro_batch_size, checkpointing)


def splits(world_size: int, hardware: Hardware) -> list[Parallelism]:
    """The strategies for so many devices, those that need no extra first; no matrix product goes beyond a node."""
    if world_size == 1:
        return [one for one in STRATEGIES.values() if one.is_alone]
    sizes = [n for n in TENSOR_SIZES if world_size % n == 0 and n <= hardware.devices_per_node]
    return [
        replace(one, tensor_parallel_size=size)
        for one in STRATEGIES.values()
        if not one.is_alone
        for size in (sizes if one.shares_products else [1])
    ]


def offloads(world_size: int) -> list[Parallelism]:
    """Those that keep on the host what they can."""
    if world_size == 1:
        return []
    return [replace(one, offload=True) for one in STRATEGIES.values() if one.zero_stage]
