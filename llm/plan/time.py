"""How long training takes, what it costs, and how much of it a budget is best spent on."""

import math
from dataclasses import dataclass

from llm.model import sequence_flops
from llm.plan.hardware import Hardware
from llm.plan.layout import Layout
from llm.plan.ledger import Memory
from llm.plan.trace import Trace, TrainingStep
from llm.train.activation_checkpointing import Checkpointing

# The share of their peak that matrix products reach while they run. It is a cautious one: whole trainings, with all else
# counted, reach 40 to 50% on accelerators (llm-foundry, llm.c), and the default model had 28 to 49% on a CPU.
MATMUL_EFFICIENCY = 0.4
# Of a machine that nobody describes neither links nor memory are counted.
HERE = Hardware()
# Tokens to a parameter, and operations to a parameter and token (Hoffmann et al., arXiv 2203.15556, table 3: approach 1).
OPTIMAL_TOKENS, OPERATIONS = 20, 6


def compute_optimal(flops: float) -> tuple[float, float]:
    """Parameters N and tokens D of the lowest loss for `flops` C: C = 6 N D and D = 20 N (arXiv 2203.15556)."""
    parameters = math.sqrt(flops / (OPERATIONS * OPTIMAL_TOKENS))
    return parameters, OPTIMAL_TOKENS * parameters


@dataclass(frozen=True)
class Pace:
    """The seconds of an optimizer step, by what they go into; data messages pass while it computes, others don't.

    Args:
        compute: forward, backward, and what is computed twice.
        update: the optimizer's, which waits for memory; where it is offloaded, for the way to the host and back.
        data: messages of weights and gradients.
        tensor: messages within matrix products.
    """

    compute: float
    update: float
    data: float
    tensor: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return max(self.compute, self.data) + self.tensor + self.update

    @property
    def at_least(self) -> float:
        """What is left of it where larger micro-batches need fewer messages of weights and gradients."""
        return self.compute + self.tensor + self.update


def step_flops(step: TrainingStep, batch_size: int) -> float:
    """Operations of the model in an optimizer step, by all processes; what is computed twice counts once."""
    work = step.work
    return batch_size * sequence_flops(step.model_config, work.inputs, read=work.source, scored=work.targets)


def twice_flops(step: TrainingStep, batch_size: int, checkpointing: Checkpointing) -> float:
    """Operations that activation checkpointing adds: `selective` does no matrix product twice."""
    if not isinstance(checkpointing, int):
        return 0.0
    work = step.work
    blocks = sequence_flops(step.model_config, work.inputs, read=work.source, scored=0, training=False)
    return batch_size * blocks / checkpointing


def pace(
    step: TrainingStep,
    trace: Trace,
    batch_size: int,
    checkpointing: Checkpointing,
    peak_flops: float,
    matmul_efficiency: float = MATMUL_EFFICIENCY,
    hardware: Hardware = HERE,
) -> Pace:
    """How fast a step is where matrix products reach `matmul_efficiency` of their peak while they run."""
    layout, memory = step.layout, trace.peak
    flops = step_flops(step, batch_size) + twice_flops(step, batch_size, checkpointing)
    sent = messages(step, trace)
    return Pace(
        compute=flops / (peak_flops * layout.world_size * matmul_efficiency),
        update=update_seconds(layout, memory, hardware),
        data=_seconds(sent["data"], data_link(hardware, layout)),
        tensor=_seconds(sent["tensor"], tensor_link(hardware, layout)),
    )


def update_seconds(layout: Layout, memory: Memory, hardware: Hardware) -> float:
    """What the optimizer takes of a step; the host's own arithmetic is not counted."""
    if layout.uses_host:
        # A float32 share each of weights, gradients and two moments lies on the host, of which the first two travel.
        return _seconds(memory.host / 2, hardware.host_gb_per_s)
    # The update reads gradients, and reads and writes weights and state.
    moved = memory.gradients + 2 * (memory.weights + memory.optimizer)
    return _seconds(moved, hardware.memory_gb_per_s)


def tensor_link(hardware: Hardware, layout: Layout) -> float | None:
    """GB/s at which a device sends to those that share its matrix products, which are neighbours."""
    if layout.parallelism.tensor_parallel_size <= hardware.devices_per_node:
        return hardware.node_gb_per_s
    return hardware.network_gb_per_s


def data_link(hardware: Hardware, layout: Layout) -> float | None:
    """GB/s at which a device sends to those that have other data.

    A ring over several nodes enters each of them once, so that the devices of a node that are in it share what goes
    through their network cards: this is the bus bandwidth of NVIDIA's nccl-tests (PERFORMANCE.md), which for eight H100
    with a card of 400 Gb/s each is near that of NVLink.
    """
    within, outside = hardware.node_gb_per_s, hardware.network_gb_per_s
    if layout.world_size <= hardware.devices_per_node or outside is None:
        return within
    outside *= max(1, hardware.devices_per_node // layout.parallelism.tensor_parallel_size)
    return outside if within is None else min(within, outside)


def _seconds(size: float, gb_per_s: float | None) -> float:
    return 0.0 if gb_per_s is None else size / (gb_per_s * 1e9)


def messages(step: TrainingStep, trace: Trace) -> dict[str, float]:
    """Bytes that a process sends in an optimizer step, by the parallelism that wants it."""
    sent = {what: step.accumulation * trace.sent.get(what, 0.0) for what in ("data", "tensor")}
    return {what: size + trace.sent_once.get(what, 0.0) for what, size in sent.items()}
