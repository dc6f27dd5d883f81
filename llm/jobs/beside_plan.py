"""What the plan says of a run, and what was measured of the same."""

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import replace

import torch

from llm import build
from llm.data.collators.base import Batch
from llm.data.module import TrainingSet, TrainSampler
from llm.jobs.job import Job
from llm.jobs.show import amount
from llm.plan import MATMUL_EFFICIENCY, Layout, TrainingStep, blanks_like, pace, trace
from llm.train.derive import Derived
from llm.train.memory import MEASURED_STEPS
from llm.train.rows import read_metrics_rows
from llm.train.run import Run

# Nobody waits longer for what the plan says of a run; other processes wait for the first one.
PLANNING_SECONDS = 10


def expected(job: Job, derived: Derived, done: int) -> dict[str, float]:
    """What the plan says of this run behind `done` steps, by the names of results.json; nothing where there is none.

    The memory is that of the batches whose memory is measured, which need not be the longest, in their order.
    """
    asked = job.sample_cost
    try:
        layout = Layout(job.parallelism, derived.world_size, derived.accelerator)
        step = build.traced_step(
            job.config, job.model_config, layout, derived.precision, asked, derived.micro_batch_size
        )
        step = replace(step, steps=max(2, min(MEASURED_STEPS, derived.max_steps - done)))
        if asked.longest != asked.mean:
            first = _first_batches(job, derived, step, done)
            step = replace(step, batches=lambda size: blanks_like(first))
        traced = trace(step, PLANNING_SECONDS)
    except TimeoutError:
        print(f"Its memory isn't planned: {PLANNING_SECONDS} s were too short. llm plan takes its time.")
        return {}
    except Exception as error:
        # Whatever an objective or optimizer of someone's own does to tensors without values: training goes on.
        print(f"Its memory isn't planned: {type(error).__name__}: {error}")
        return {}
    batch_size, checkpointing = job.config["data"]["batch_size"], job.config["activation_checkpointing"]
    paced = pace(step, traced, batch_size, checkpointing, derived.peak_flops)
    return {
        "planned_peak_bytes": traced.peak.total,
        "planned_tensor_bytes": traced.peak.tensors,
        "planned_tokens_per_second": batch_size * asked.mean.counted / paced.seconds,
    }


def _first_batches(job: Job, derived: Derived, step: TrainingStep, done: int) -> list[Batch]:
    """The first process's micro-batches in the steps whose memory is measured; of each step the largest, as many as are traced."""
    sizes = (job.config["data"]["batch_size"], derived.micro_batch_size)
    numbers = TrainSampler(done * sizes[0], *sizes, rank=0, world_size=step.layout.data_parallel_size)
    batches = map(TrainingSet(job.train_view, job.collate, sizes[0]).__getitems__, numbers)
    steps = (list(itertools.islice(batches, derived.accumulation)) for _ in range(MEASURED_STEPS))
    largest = (sorted(one, key=_values)[-step.traced_micro_batches :] for one in steps)
    return [_with_fields(batch, job.collate.extra_fields) for batch in itertools.chain.from_iterable(largest)]


def _values(batch: Batch) -> int:
    return sum(t.numel() for t in batch if t is not None)


def _with_fields(batch: Batch, extra_fields: tuple[str, ...]) -> Batch:
    """With the log-probabilities of the reference model, which a preference gets only in training."""
    if "reference_b2" in extra_fields and batch.reference_b2 is None:
        return batch._replace(reference_b2=torch.zeros(batch.indices_b.shape[0], 2))
    return batch


def measured(run: Run, peak_bytes: int | None) -> dict[str, float]:
    """What was measured of the same."""
    rows = read_metrics_rows(run.metrics) if run.metrics.exists() else []
    speeds = [float(row["tokens_per_second"]) for row in rows if row.get("tokens_per_second")]
    return {
        **({} if peak_bytes is None else {"peak_bytes": peak_bytes}),
        **({"tokens_per_second": statistics.median(speeds)} if speeds else {}),
    }


def lines_beside_plan(metrics: dict[str, float]) -> Iterator[str]:
    """What was measured beside what the plan said, a line each."""
    if {"peak_bytes", "planned_peak_bytes"} <= metrics.keys():
        took, said = metrics["peak_bytes"], metrics["planned_peak_bytes"]
        yield f"Memory:  {amount(took)}B for training, a process; the plan said {amount(said)}B"
    if {"tokens_per_second", "planned_tokens_per_second"} <= metrics.keys():
        took, said = metrics["tokens_per_second"], metrics["planned_tokens_per_second"]
        how = f"of matrix products at {MATMUL_EFFICIENCY:.0%} of their peak"
        yield f"Speed:   {took:,.0f} tokens a second; the plan said {said:,.0f}, {how}"
