"""Values that follow from the config and the machine: decided once, written into the run, reused on resume."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_type_hints

import torch

from llm.errors import ConfigError
from llm.train.activation_checkpointing import Checkpointing
from llm.train.hardware import accelerator_name, compiles_for_cpu, device_count, has_bf16, peak_flops
from llm.train.launch import launched_here
from llm.train.parallelism import TENSOR_PARALLEL, Parallelism
from llm.train.precision import compute_dtype

# Enough work for the device to be busy, and little enough for a CPU's caches. A large model on an accelerator may
# want less than this rule says: data.micro_batch_size= sets it, and `dry_run=true` says what it takes.
CPU_MICRO_BATCH_TOKENS = 8192
ACCELERATOR_MICRO_BATCH_TOKENS = 32768
# On a CPU compiling takes half a minute the first time, and gives back a fifth to a third of every step.
CPU_COMPILE_STEPS = 500


@dataclass(frozen=True)
class Machine:
    """What training runs on.

    Args:
        accelerator: `cpu`, `cuda`, ...
        devices: how many `trainer.devices=auto` takes of a node.
        is_limited: whether more can't be asked for.
        has_bf16: whether bfloat16 matrix products run in hardware.
        peak_flops: gives the FLOP/s of one device in matrix products of a dtype.
    """

    accelerator: str
    devices: int
    is_limited: bool
    has_bf16: bool
    peak_flops: Callable[[torch.dtype], float]


def this_machine(wanted: str) -> Machine:
    """This machine, by Lightning's `accelerator` argument."""
    name = accelerator_name(wanted)
    return Machine(
        accelerator=name,
        devices=device_count(wanted),
        is_limited=name != "cpu",
        has_bf16=has_bf16(wanted),
        peak_flops=partial(peak_flops, torch.device(name)),
    )


@dataclass(frozen=True)
class Derived:
    """What a run uses where the config says `auto` or nothing.

    Sizes are in sequences; `max_steps` counts optimizer steps; `peak_flops` is one device's, in FLOP/s.
    """

    accelerator: str
    devices: int
    world_size: int
    precision: str
    compile: bool
    micro_batch_size: int
    accumulation: int
    max_steps: int
    peak_flops: float

    def record(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return asdict(self)


def derive(
    config: dict[str, Any],
    parallelism: Parallelism,
    context_length: int,
    samples_per_epoch: int,
    known: dict[str, Any],
    machine: Machine | None = None,
) -> Derived:
    """Decide what the config leaves open.

    Args:
        config: the composed config.
        parallelism: what its `strategy=` does.
        context_length: the model's, in tokens.
        samples_per_epoch: training windows in one pass over the corpus.
        known: an earlier `Derived.record` of this run; what was probed then holds now where it still fits.
        machine: what to train on; this machine if None.

    Raises:
        ConfigError: devices, batch sizes or steps that cannot be.
    """
    trainer, batch_size = config["trainer"], config["data"]["batch_size"]
    check_activation_checkpointing(config["activation_checkpointing"], parallelism)
    machine = machine or this_machine(trainer["accelerator"])
    devices = _devices(trainer, parallelism, machine)
    world_size = devices * trainer["num_nodes"]
    probed = known if _is_record(known) and known["accelerator"] == machine.accelerator else {}
    data_parallel_size = _data_parallel_size(parallelism, world_size)
    micro = _micro_batch_size(config["data"], data_parallel_size, context_length, machine.accelerator, probed)
    precision = _precision(trainer["precision"], machine, probed)
    steps = _max_steps(trainer, batch_size, samples_per_epoch)
    return Derived(
        accelerator=machine.accelerator,
        devices=devices,
        world_size=world_size,
        precision=precision,
        compile=_compile(config["compile"], machine.accelerator, parallelism, steps, probed),
        micro_batch_size=micro,
        accumulation=batch_size // (data_parallel_size * micro),
        max_steps=steps,
        peak_flops=_peak_flops(precision, machine, probed),
    )


def check_activation_checkpointing(checkpointing: Checkpointing, parallelism: Parallelism) -> None:
    """Refuse activation checkpointing that a strategy can't do.

    Raises:
        ConfigError: it can't.
    """
    if parallelism.gathers_in_hooks and checkpointing == "selective":
        raise ConfigError(
            f"activation_checkpointing=selective: under strategy={parallelism.name} its gradients are wrong. "
            "Use activation_checkpointing=1, or strategy=fsdp."
        )


def _is_record(known: dict[str, Any]) -> bool:
    """Whether this is what `Derived.record` gives, come back from JSON."""
    # JSON keeps no difference between 1 and 1.0.
    return all(
        isinstance(known.get(name), (float, int) if kind is float else kind)
        for name, kind in get_type_hints(Derived).items()
    )


def _devices(trainer: dict[str, Any], parallelism: Parallelism, machine: Machine) -> int:
    wanted = trainer["devices"]
    if wanted in ("auto", -1):
        # A launcher has decided it by now.
        wanted = 1 if parallelism.is_alone else launched_here() or machine.devices
    count = len(wanted) if isinstance(wanted, list) else int(wanted)
    if parallelism.is_alone and count * trainer["num_nodes"] > 1:
        raise ConfigError(
            f"strategy={parallelism.name} trains on one device, and trainer.devices={wanted} with trainer.num_nodes="
            f"{trainer['num_nodes']} are {count * trainer['num_nodes']}: use strategy=ddp."
        )
    if machine.is_limited and count > machine.devices:
        raise ConfigError(f"trainer.devices={wanted}, but this machine has {machine.devices}.")
    return count


def _data_parallel_size(parallelism: Parallelism, world_size: int) -> int:
    """How many micro-batches there are at a time: processes that share each matrix product read the same data."""
    size = parallelism.tensor_parallel_size
    if world_size % size:
        raise ConfigError(
            f"trainer.strategy.{TENSOR_PARALLEL}={size} does not divide the {world_size} processes of trainer.devices "
            f"and trainer.num_nodes: set trainer.devices={size}, or a multiple."
        )
    return world_size // size


def _divided(batch_size: int, data_parallel_size: int) -> int:
    if batch_size % data_parallel_size:
        lower = batch_size - batch_size % data_parallel_size
        raise ConfigError(
            f"data.batch_size={batch_size} sequences cannot be shared evenly by {data_parallel_size} processes: "
            f"use {lower or data_parallel_size} or {lower + data_parallel_size}."
        )
    return batch_size // data_parallel_size


def _micro_batch_size(
    data: dict[str, Any],
    data_parallel_size: int,
    context_length: int,
    accelerator: str,
    probed: dict[str, Any],
) -> int:
    per_rank = _divided(data["batch_size"], data_parallel_size)
    given = data["micro_batch_size"]
    if given is None:
        return _fitting(per_rank, context_length, accelerator, probed.get("micro_batch_size"))
    if per_rank % given:
        raise ConfigError(
            f"data.micro_batch_size={given} does not divide the {per_rank} sequences that each of {data_parallel_size} "
            f"processes has of data.batch_size={data['batch_size']}."
        )
    return given


def _fitting(per_rank: int, context_length: int, accelerator: str, probed: int | None) -> int:
    if probed and probed > 0 and per_rank % probed == 0:
        return probed
    budget = CPU_MICRO_BATCH_TOKENS if accelerator == "cpu" else ACCELERATOR_MICRO_BATCH_TOKENS
    fitting = max(1, budget // context_length)
    return max(n for n in range(1, min(per_rank, fitting) + 1) if per_rank % n == 0)


def _precision(wanted: str, machine: Machine, probed: dict[str, Any]) -> str:
    if wanted != "auto":
        return wanted
    return probed["precision"] if probed else ("bf16-mixed" if machine.has_bf16 else "32-true")


def _compile(
    wanted: bool | str, accelerator: str, parallelism: Parallelism, steps: int, probed: dict[str, Any]
) -> bool:
    if parallelism.gathers_in_hooks:
        if wanted is True:
            raise ConfigError(
                f"compile=true: strategy={parallelism.name} gathers weights in hooks that can't be compiled. Use strategy=fsdp, "
                "or leave compile=true out."
            )
        return False
    if isinstance(wanted, bool):
        return wanted
    if probed:
        return bool(probed["compile"])
    long_on_cpu = accelerator == "cpu" and parallelism.is_alone and steps >= CPU_COMPILE_STEPS
    return accelerator == "cuda" or (long_on_cpu and compiles_for_cpu())


def _peak_flops(precision: str, machine: Machine, probed: dict[str, Any]) -> float:
    if probed and probed["precision"] == precision and probed["peak_flops"] > 0:
        return probed["peak_flops"]
    return machine.peak_flops(compute_dtype(precision))


def _max_steps(trainer: dict[str, Any], batch_size: int, samples_per_epoch: int) -> int:
    steps, epochs, time = trainer["max_steps"], trainer["max_epochs"], trainer["max_time"]
    if time is not None and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", time):
        raise ConfigError(f"trainer.max_time={time}: write it as DD:HH:MM:SS, such as 00:01:30:00.")
    if steps < 1 and steps != -1:
        raise ConfigError(f"trainer.max_steps={steps}: it is at least 1, or -1 for no limit.")
    limits = [] if steps == -1 else [steps]
    if epochs is not None:
        limits.append(math.ceil(epochs * samples_per_epoch / batch_size))
    if not limits:
        raise ConfigError("trainer.max_steps or trainer.max_epochs must say when training ends.")
    return min(limits)
