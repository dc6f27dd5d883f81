"""Where a training step's time goes on a CPU, and how near it comes to the machine's limit.

    python benchmarks/where_time_goes.py

Our model in bf16, compiled, as throughput.py's bare loop trains it, with the memory settings that `llm` makes for
itself. torch's profiler counts the time; the compiler names each of its kernels after what it fused. The limit is a
square bf16 matrix product on the same threads. The model's operations are those of its matrix products, forward and
backward, attention counted as if nothing were masked.
"""

import argparse
import dataclasses
import os
import re
from collections import defaultdict

from loops import LOSSES, Job, bare_step
from throughput import QUICK, SHAPES
from timing import machine, table

from llm.malloc import start_again_without_cache

# The first pattern that a kernel's name matches decides.
GROUPS = {
    "matrix products of weights": r"aten::(mm|addmm)$",
    "matrix products of attention": r"aten::bmm$",
    "loss": r"cpp_fused.*log_softmax",
    "softmax of attention": r"cpp_fused.*softmax",
    "activation": r"cpp_fused.*gelu",
    "norms, residuals, casts, embedding": r"cpp_fused",
    "optimizer": r"aten::_fused_adamw_$",
    "clipping": r"aten::(linalg_vector_norm|mul_|_foreach_.*)$",
}


def profiled(job: Job, steps: int) -> dict[str, float]:
    """Seconds a step by group, `whole step` among them, and the limit as `ceiling` in FLOP/s."""
    import torch
    import torch._inductor.config as compiler
    from torch.profiler import profile

    from llm.malloc import tune_malloc
    from llm.train.hardware import measure_flops

    tune_malloc(4 * job.vocab_size * max(job.d_model, job.batch_size * job.context_length))
    compiler.cpp.enable_kernel_profile = True  # type: ignore[attr-defined]
    compiler.cpp.descriptive_names = "original_aten"  # type: ignore[attr-defined]
    step = bare_step(LOSSES["ours"](job), job)
    for _ in range(job.warm):
        step()
    with profile() as seen:
        for _ in range(steps):
            step()
    seconds: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        seconds[_group(event.key)] += event.self_cpu_time_total / 1e6 / steps
    return {
        "whole step": sum(seconds.values()),
        **seconds,
        "ceiling": measure_flops(torch.device("cpu"), torch.bfloat16),
    }


def _group(kernel: str) -> str:
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, kernel)), "the rest")


def operations(job: Job) -> float:
    """Floating-point operations of one step."""
    from llm.model import ModelConfig, flops_per_token

    config = ModelConfig(
        d_model=job.d_model,
        n_layers=job.n_layers,
        n_heads=job.n_heads,
        context_length=job.context_length,
        vocab_size=job.vocab_size,
        activation="gelu_tanh",
    )
    return flops_per_token(config) * job.batch_size * job.context_length


def show(seconds: dict[str, float], job: Job) -> str:
    whole, ceiling = seconds.pop("whole step"), seconds.pop("ceiling")
    rows = [
        [group, f"{1e3 * spent:,.0f} ms", f"{spent / whole:.0%}"]
        for group, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    reached = operations(job) / whole
    return (
        f"{table(['what', 'a step', 'share'], [*rows, ['whole step', f'{1e3 * whole:,.0f} ms', '']])}\n\n"
        f"{operations(job) / 1e9:,.0f} GFLOP a step at {reached / 1e9:,.0f} GFLOP/s: {reached / ceiling:.0%} of the "
        f"{ceiling / 1e9:,.0f} that a square product reaches."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--shape", choices=SHAPES, default="124M")
    parser.add_argument("--quick", action="store_true", help="two steps of a tiny shape: whether it works")
    args = parser.parse_args()
    start_again_without_cache()  # as train.py does
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import torch

    torch.set_num_threads(args.threads)
    job = QUICK["quick"] if args.quick else SHAPES[args.shape]
    job = dataclasses.replace(job, precision="bf16", compile=True)
    print(machine(args.threads))
    print(f"\n{show(profiled(job, 2 if args.quick else args.steps), job)}")


if __name__ == "__main__":
    main()
