"""`llm plan`: whether a training command fits its hardware, what it takes there, and what would be better."""

import gc
import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from llm import build
from llm.build import Config
from llm.config import Composed
from llm.errors import ConfigError
from llm.files import write_json
from llm.jobs.outlook import Outlook, look_ahead
from llm.jobs.plan_tables import show
from llm.model import parameter_count
from llm.plan import (
    Choice,
    Hardware,
    Planned,
    Planner,
    TrainingStep,
    compute_optimal,
    data_link,
    messages,
    step_flops,
    tensor_link,
)
from llm.train.derive import Machine, check_activation_checkpointing, this_machine
from llm.train.parallelism import STRATEGIES, parallelism_of

GIVEN_BATCH, STRATEGY = "data.batch_size", "strategy"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """A plan, and what it was made for."""

    config: Config
    outlook: Outlook
    hardware: Hardware
    planner: Planner
    planned: Planned
    asked: Choice
    device_memory: int

    @property
    def step(self) -> TrainingStep:
        """The planned step."""
        return self.planned.step

    @property
    def world_size(self) -> int:
        """How many devices train."""
        return self.outlook.derived.world_size

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a global batch."""
        return self.outlook.tokens_per_step

    @cached_property
    def steps(self) -> int | None:
        """Optimizer steps; None where the corpus decides it."""
        tokens = self.config["tokens"]
        return self.outlook.steps if tokens is None else math.ceil(tokens / self.tokens_per_step)

    @property
    def flops_per_step(self) -> float:
        """The model's own."""
        return step_flops(self.step, self.config["data"]["batch_size"])


def run(composed: Composed) -> int:
    """Print the plan, and write it where `out` says; returns the exit code."""
    config = composed.config
    began = time.perf_counter()
    with _quick_collections():
        report = plan(config, composed.choices, composed.given_keys)
        better = _better(report)
    figures = {
        **_figures(report),
        "goal": config["goal"],
        "ways": [_way(report, way) for way in better],
        "seconds": time.perf_counter() - began,
    }
    show(figures)
    if config["out"] is not None:
        write_json(Path(config["out"]), figures)
    return 0


@contextmanager
def _quick_collections() -> Iterator[None]:
    """Within, the collection before each trace looks through what is new alone: all modules take a quarter of a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def plan(config: Config, choices: dict[str, Any], typed: Collection[str]) -> Report:
    """Plan what the config says.

    Raises:
        UserError: whatever training would raise before its first step.
    """
    hardware = Hardware(**config["hardware"])
    machine = _machine(hardware, config)
    asked_config = _with_batch(config, typed)
    config = _with_strategy(asked_config, typed)
    outlook = look_ahead(config, choices, machine)
    derived, step = outlook.derived, outlook.step
    room = hardware.memory_bytes(derived.accelerator)
    if hardware.is_here and derived.accelerator == "cpu":
        room //= derived.devices  # processes share a machine's memory
    planner = Planner(
        make=partial(_make, outlook),
        hardware=hardware,
        room=room * (1 - config["headroom"]),
        batch_size=config["data"]["batch_size"],
        peak_flops=derived.peak_flops,
        float32_flops=hardware.peak_flops(torch.float32),
        matmul_efficiency=config["matmul_efficiency"],
    )
    choice = Choice(
        step.layout.parallelism,
        derived.micro_batch_size,
        config["activation_checkpointing"],
    )
    asked = choice
    if config is not asked_config:
        asked = replace(choice, parallelism=parallelism_of(asked_config["trainer"]["strategy"]))
    return Report(config, outlook, hardware, planner, planner.plan(choice), asked, room)


def _machine(hardware: Hardware, config: Config) -> Machine:
    """What training would run on."""
    if hardware.is_here:
        wanted = hardware.accelerator if hardware.accelerator != "auto" else config["trainer"]["accelerator"]
        return replace(this_machine(wanted), is_limited=False)
    return Machine(
        accelerator=hardware.accelerator,
        devices=hardware.devices_per_node,
        is_limited=False,
        has_bf16=hardware.bf16_tflops is not None,
        peak_flops=partial(_peak, hardware),
    )


def _peak(hardware: Hardware, dtype: torch.dtype) -> float:
    peak = hardware.peak_flops(dtype)
    if peak is None:
        key = "hardware.fp32_tflops" if dtype == torch.float32 else "hardware.bf16_tflops"
        raise ConfigError(f"{key} isn't known: set it, as the device's data sheet has it.")
    return peak


def _with_batch(config: Config, typed: Collection[str]) -> Config:
    """A batch that nobody asked for becomes as large as there are processes, where it could not be shared by them."""
    trainer, data = config["trainer"], config["data"]
    devices = trainer["devices"]
    if GIVEN_BATCH in typed or not isinstance(devices, int) or devices < 1:
        return config
    world_size = devices * trainer["num_nodes"]
    if data["batch_size"] % world_size == 0:
        return config
    whole = math.ceil(data["batch_size"] / world_size) * world_size
    return {**config, "data": {**data, "batch_size": whole}}


def _with_strategy(config: Config, typed: Collection[str]) -> Config:
    """A search for several devices to which nobody gave a strategy begins where each has a copy of the model."""
    trainer = config["trainer"]
    devices = trainer["devices"]
    is_open = (
        config["goal"] == "fastest" and parallelism_of(trainer["strategy"]).is_alone and STRATEGY not in typed
    )
    if not is_open or not isinstance(devices, int) or devices * trainer["num_nodes"] < 2:
        return config
    return {**config, "trainer": {**trainer, "strategy": {"_target_": STRATEGIES["ddp"].target}}}


def _make(outlook: Outlook, choice: Choice) -> TrainingStep:
    """A choice's step.

    Raises:
        ConfigError: the model or the optimizer can't be split so.
    """
    layout = replace(outlook.step.layout, parallelism=choice.parallelism)
    check_activation_checkpointing(choice.activation_checkpointing, choice.parallelism)
    build.check_layout(outlook.config, outlook.model_config, choice.parallelism)
    config = {**outlook.config, "activation_checkpointing": choice.activation_checkpointing}
    return build.traced_step(
        config,
        outlook.model_config,
        layout,
        outlook.derived.precision,
        outlook.sample_cost,
        choice.micro_batch_size,
    )


def _better(report: Report) -> list[Planned]:
    """What to do instead: the fastest, or what would fit."""
    if report.config["goal"] == "fastest":
        present = report.planned if report.planned.fits else None
        best = report.planner.fastest(report.world_size, present)
        return [] if best is None else [best]
    if report.planned.fits:
        return []
    return report.planner.ways(report.planned.choice, report.world_size)


def _figures(report: Report) -> Figures:
    """All that is known, by name; in bytes, seconds, FLOP/s and GB/s."""
    derived, paced, trace = report.outlook.derived, report.planned.pace, report.planned.trace
    return {
        "fits": report.planned.fits,
        "parameters": parameter_count(report.step.model_config),
        "vocabulary": report.step.model_config.vocabulary,
        "accelerator": derived.accelerator,
        "world_size": derived.world_size,
        "precision": derived.precision,
        "peak_flops": derived.peak_flops,
        "batch_size": report.config["data"]["batch_size"],
        "accumulation": report.step.accumulation,
        "choice": report.planned.choice.overrides(),
        "memory": {**asdict(trace.peak), "total": trace.peak.total},
        "moment": trace.moment,
        "room": report.planner.room,
        "device_memory": report.device_memory,
        "headroom": report.config["headroom"],
        "sent": messages(report.step, trace),
        "links": _links(report),
        "step_seconds": {**asdict(paced), "total": paced.seconds},
        **_pace_figures(report),
        **_total_figures(report),
    }


def _links(report: Report) -> Figures:
    layout, hardware = report.step.layout, report.hardware
    return {
        "data": data_link(hardware, layout),
        "tensor": tensor_link(hardware, layout),
    }


def _pace_figures(report: Report) -> Figures:
    derived, seconds = report.outlook.derived, report.planned.pace.seconds
    return {
        "tokens_per_step": report.tokens_per_step,
        "flops_per_token": report.flops_per_step / report.tokens_per_step,
        "tokens_per_second": report.tokens_per_step / seconds,
        "matmul_efficiency": report.config["matmul_efficiency"],
        "model_mfu": report.flops_per_step / (seconds * derived.peak_flops * derived.world_size),
    }


def _total_figures(report: Report) -> Figures:
    """Those of the whole run; None where the corpus decides its length, and no price is known."""
    steps, price = report.steps, report.hardware.price_per_hour
    names = ("steps", "tokens", "flops", "train_seconds", "cost", "optimal_parameters", "optimal_tokens")
    if steps is None:
        return dict.fromkeys(names)
    flops, seconds = steps * report.flops_per_step, steps * report.planned.pace.seconds
    cost = None if price is None else seconds / 3600 * price * report.world_size
    return dict(
        zip(
            names,
            (steps, steps * report.tokens_per_step, flops, seconds, cost, *compute_optimal(flops)),
            strict=True,
        )
    )


def _way(report: Report, way: Planned) -> Figures:
    return {
        "overrides": way.choice.beside(report.asked),
        "memory": way.trace.peak.total,
        "tokens_per_second": report.tokens_per_step / way.pace.seconds,
    }
