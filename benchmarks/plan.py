"""How much memory training takes beside what the plan says: train.py in one process and two, on this machine's CPU.

    python benchmarks/plan.py

Each case is three steps of train.py as its users run it, with large pages and what is freed kept, for each measure once.
What the plan said before the first step is in its results.json, and so is what was resident at most in the first process
during the steps, less what was so before them and is no tensor (llm/train/memory.py): `resident`. For `tensors`, torch's
profiler adds up what its allocator gives out and takes back, beside what the plan says without gaps. Vocabularies are
trained on Python's standard library. All cases are forks of one process, which spares them the imports.
"""

import argparse
import contextlib
import functools
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import traceback
from pathlib import Path

from throughput import data_words, prepare
from timing import machine, table

from llm.malloc import start_again_without_cache

SMALL = (
    "model=gpt_small",
    "model.d_model=384",
    "model.n_layers=6",
    "model.n_heads=6",
    "model.context_length=256",
)
LARGE = ("model=gpt_small", "model.n_layers=6", "model.context_length=512")
LLAMA = ("model=llama_nano", "model.d_model=512", "model.n_layers=8", "model.n_heads=8", "model.n_kv_heads=4")
BERT = ("model=bert_base", "task=masked_lm", "model.n_layers=4")
T5 = ("model=t5_small", "task=span_corruption")
TWO = ("trainer.devices=2",)
AGAIN = ("activation_checkpointing=1",)
BF16 = ("trainer.precision=bf16-mixed",)
OFFLOAD = ("trainer.strategy.offload=true",)


def batch(size: int, micro: int) -> tuple[str, ...]:
    """The words for a global batch and a process's share of it at a time."""
    return (f"data.batch_size={size}", f"data.micro_batch_size={micro}")


def split(strategy: str, size: int, micro: int) -> tuple[str, ...]:
    """The words for two processes."""
    return (f"strategy={strategy}", *TWO, *batch(size, micro))


CASES = {
    "GPT 14M, single, 4": (*SMALL, *batch(4, 4)),
    "GPT 14M, single, 16": (*SMALL, *batch(16, 16)),
    "GPT 14M, single, 16, every block again": (*SMALL, *batch(16, 16), *AGAIN),
    "GPT 14M, single, 16, selective": (*SMALL, *batch(16, 16), "activation_checkpointing=selective"),
    "GPT 49M, single, 1": (*LARGE, *batch(1, 1)),
    "GPT 49M, single, 4": (*LARGE, *batch(4, 4)),
    "GPT 49M, single, 4, every block again": (*LARGE, *batch(4, 4), *AGAIN),
    "GPT 49M, single, 2 + 2": (*LARGE, *batch(4, 2)),
    "GPT 49M, single, 4, bfloat16": (*LARGE, *batch(4, 4), *BF16),
    "Llama 19M, single, 8": (*LLAMA, *batch(8, 8)),
    "BERT 36M, single, 4": (*BERT, *batch(4, 4)),
    "T5 46M, single, 8": (*T5, *batch(8, 8)),
    "Transformer 8M on pairs, single, 8": (
        "model=transformer_nano",
        "data=docstrings",
        "task=summarization",
        *batch(8, 8),
    ),
    "nano on chats, single, 8": ("model=nano", "data=docstring_chats", "task=chat", *batch(8, 8)),
    "GPT 49M, ddp, 1": (*LARGE, *split("ddp", 2, 1)),
    "GPT 49M, ddp, 1 + 1": (*LARGE, *split("ddp", 4, 1)),
    "BERT 36M, ddp, 2": (*BERT, *split("ddp", 4, 2)),
    "GPT 49M, fsdp, 1": (*LARGE, *split("fsdp", 2, 1)),
    "GPT 49M, fsdp, 4, every block again": (*LARGE, *split("fsdp", 8, 4), *AGAIN),
    "GPT 49M, fsdp, 2, bfloat16": (*LARGE, *split("fsdp", 4, 2), *BF16),
    "T5 46M, fsdp, 2": (*T5, *split("fsdp", 4, 2)),
    "GPT 49M, fsdp_tp, 2": (*LARGE, *split("fsdp_tp", 2, 2)),
    "GPT 49M, deepspeed_zero1, 1 + 1": (*LARGE, *split("deepspeed_zero1", 4, 1)),
    "GPT 49M, deepspeed_zero2, 1": (*LARGE, *split("deepspeed_zero2", 2, 1)),
    "GPT 49M, deepspeed_zero2, 1 + 1": (*LARGE, *split("deepspeed_zero2", 4, 1)),
    "GPT 49M, deepspeed_zero2, 1, bfloat16": (*LARGE, *split("deepspeed_zero2", 2, 1), *BF16),
    "GPT 49M, deepspeed_zero2, 1, offload": (*LARGE, *split("deepspeed_zero2", 2, 1), *OFFLOAD),
    "GPT 49M, deepspeed_zero3, 1": (*LARGE, *split("deepspeed_zero3", 2, 1)),
    "GPT 49M, deepspeed_zero3, 4, every block again": (*LARGE, *split("deepspeed_zero3", 8, 4), *AGAIN),
    "GPT 49M, deepspeed_zero3, 1, offload": (*LARGE, *split("deepspeed_zero3", 2, 1), *OFFLOAD),
    "T5 46M, deepspeed_zero2, 2": (*T5, *split("deepspeed_zero2", 4, 2)),
    "BERT 36M, deepspeed_zero3, 2": (*BERT, *split("deepspeed_zero3", 4, 2)),
}
QUICK = {"tiny": ("model=gpt_nano", *batch(2, 2))}
MEASURES = ("resident", "tensors")
PLANNED = {"resident": "planned_peak_bytes", "tensors": "planned_tensor_bytes"}


def words_of(case: tuple[str, ...], work: Path) -> list[str]:
    """The words of train.py for a case."""
    data, *rest = data_words(8192, work)
    return [
        *([] if any(word.startswith("data=") for word in case) else [data]),
        *rest,
        f"runs_dir={work}/runs",
        "name=plan",
        "compile=false",
        "eval=[]",
        "samples.every_n_steps=null",
        "samples.max_new_tokens=8",  # an encoder hides a few of as many
        "trainer.accelerator=cpu",
        "trainer.max_steps=3",
        "trainer.log_every_n_steps=1",
        "trainer.val_check_interval=null",
        *(() if set(BF16) <= set(case) else ("trainer.precision=32-true",)),
        *case,
    ]


def import_all() -> None:
    """Import what each case would import; torch asks for large pages only once, as `llm` sets them."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

    with contextlib.suppress(ImportError):
        import deepspeed  # noqa: F401


def train(words: list[str], tensors: Path | None) -> int:
    """Be train.py; into `tensors` goes the most that torch's allocator had given out at a time, in bytes."""
    import llm.jobs.beside_plan as job
    from llm.cli.main import main as llm

    job.PLANNING_SECONDS = 600  # however busy the machine is
    if tensors is None:
        return llm(["train", *words])
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        code = llm(["train", *words])
    found = seen.profiler.kineto_results.events()
    events = [e for e in found if e.name() == "[memory]"]
    # A sharded model is put together behind the last step.
    last = max(e.start_ns() + e.duration_ns() for e in found if e.name().startswith("Optimizer.step"))
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.start_ns() > last:
            break
        held += event.nbytes()
        most = max(most, held)
    tensors.write_text(json.dumps(most))
    return code


def forked(words: list[str], rank: int, launch: dict[str, str], work: Path, tensors: Path | None) -> int:
    """Start a process of a case; its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        with (work / f"output{rank}.txt").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.update(launch)
        code = train(words, tensors if rank == 0 else None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(case: tuple[str, ...], work: Path, tensors: Path | None) -> None:
    """Train as a case says.

    Raises:
        RuntimeError: a process failed; with what it printed.
    """
    shutil.rmtree(work / "runs", ignore_errors=True)
    world_size = 2 if set(TWO) <= set(case) else 1
    pids = [
        forked(words_of(case, work), rank, launched(rank, world_size), work, tensors)
        for rank in range(world_size)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    for rank, code in enumerate(codes):
        if code:
            raise RuntimeError(f"{case}, process {rank}:\n{(work / f'output{rank}.txt').read_text()[-4000:]}")


@functools.cache
def free_port() -> str:
    """Where the processes of all cases meet."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def launched(rank: int, world_size: int) -> dict[str, str]:
    """What torchrun would tell a process of several."""
    if world_size == 1:
        return {}
    return {
        **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world_size)),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "TORCHELASTIC_RUN_ID": "plan",
    }


def figures(case: tuple[str, ...], work: Path, measures: list[str]) -> dict[str, tuple[float, float]]:
    """Train as a case says; by measure, what was planned and what was measured, in bytes."""
    found = {}
    for measure in measures:
        tensors = work / "tensors.json" if measure == "tensors" else None
        run(case, work, tensors)
        entries = json.loads((work / "runs/plan/results.json").read_text())
        seen = next(entry["metrics"] for entry in entries if entry["evaluation"] == "training")
        taken = json.loads(tensors.read_text()) if tensors else seen["peak_bytes"]
        found[measure] = seen[PLANNED[measure]], taken
    return found


def summary(measure: str, errors: list[float]) -> str:
    """A line on the errors of one measure."""
    sizes = list(map(abs, errors))
    within = sum(size <= 0.1 for size in sizes)
    return (
        f"{measure}: median error {statistics.median(sizes):.1%}, largest {max(sizes):.1%}; "
        f"{within} of {len(sizes)} within 10%."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--quick", action="store_true", help="one tiny case: whether it works")
    args = parser.parse_args()
    start_again_without_cache()  # as train.py does
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    cases = QUICK if args.quick else {name: CASES[name] for name in args.cases}
    print(machine(args.threads))
    rows: list[list[str]] = []
    errors: dict[str, list[float]] = {measure: [] for measure in args.measures}
    with tempfile.TemporaryDirectory() as work:
        prepare(8192, Path(work), args.threads)
        import_all()
        for name, case in cases.items():
            seen = figures(case, Path(work), args.measures)
            row = [name]
            for measure, (plan, taken) in seen.items():
                errors[measure].append(plan / taken - 1)
                row += [f"{plan / 1e6:,.0f} MB", f"{taken / 1e6:,.0f} MB", f"{errors[measure][-1]:+.1%}"]
            rows.append(row)
            print(*row, sep=", ", file=sys.stderr, flush=True)
    heads = [head for measure in args.measures for head in (f"planned {measure}", measure, "error")]
    print(f"\n{table(['model, strategy, micro-batch', *heads], rows)}\n")
    print(*(summary(measure, found) for measure, found in errors.items()), sep="\n")


if __name__ == "__main__":
    main()
