"""How much memory training takes beside what the plan says: train.py in one process and two, on this machine's CPU.

    python benchmarks/plan.py

Each case is three steps of train.py. Both figures are from its results.json: what the plan said before the first step,
and what was resident at most in the first process during the steps, less what was so before them and is no weight
(llm/train/memory.py). What is freed goes back to the system at once, so that what is resident is what is in use; with
`--as-it-is` train.py keeps what it frees, as it does for its users. The vocabulary is trained on Python's standard
library.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from throughput import data_words, prepare
from timing import ROOT, machine, run, table

SMALL = (
    "model=gpt_small",
    "model.d_model=384",
    "model.n_layers=6",
    "model.n_heads=6",
    "model.context_length=256",
)
LARGE = ("model=gpt_small", "model.context_length=512")
LLAMA = ("model=llama_nano", "model.d_model=512", "model.n_layers=8", "model.n_heads=8", "model.n_kv_heads=4")
TWO = ("trainer.devices=2",)


def batch(size: int, micro: int) -> tuple[str, ...]:
    """The words for a global batch and a process's share of it at a time."""
    return (f"data.batch_size={size}", f"data.micro_batch_size={micro}")


CASES = {
    "GPT 14M, single, 4": (*SMALL, *batch(4, 4)),
    "GPT 14M, single, 16": (*SMALL, *batch(16, 16)),
    "GPT 14M, single, 16, every block again": (*SMALL, *batch(16, 16), "activation_checkpointing=1"),
    "GPT 14M, single, 16, selective": (*SMALL, *batch(16, 16), "activation_checkpointing=selective"),
    "GPT 92M, single, 1": (*LARGE, *batch(1, 1)),
    "GPT 92M, single, 4": (*LARGE, *batch(4, 4)),
    "GPT 92M, single, 4, every block again": (*LARGE, *batch(4, 4), "activation_checkpointing=1"),
    "GPT 92M, single, 2 + 2": (*LARGE, *batch(4, 2)),
    "GPT 92M, single, 4, bfloat16": (*LARGE, *batch(4, 4), "trainer.precision=bf16-mixed"),
    "GPT 92M, ddp, 1": (*LARGE, *batch(2, 1), "strategy=ddp", *TWO),
    "GPT 92M, ddp, 1 + 1": (*LARGE, *batch(4, 1), "strategy=ddp", *TWO),
    "GPT 92M, fsdp, 1": (*LARGE, *batch(2, 1), "strategy=fsdp", *TWO),
    "GPT 92M, fsdp, 4, every block again": (
        *LARGE,
        *batch(8, 4),
        "activation_checkpointing=1",
        "strategy=fsdp",
        *TWO,
    ),
    "GPT 92M, fsdp, 2, bfloat16": (
        *LARGE,
        *batch(4, 2),
        "trainer.precision=bf16-mixed",
        "strategy=fsdp",
        *TWO,
    ),
    "GPT 92M, fsdp_tp, 2": (*LARGE, *batch(2, 2), "strategy=fsdp_tp", *TWO),
    "Llama 30M, single, 8": (*LLAMA, *batch(8, 8)),
}
QUICK = {"tiny": ("model=gpt_nano", *batch(2, 2))}


def command(words: tuple[str, ...], work: Path) -> list[str]:
    """The command line of a case."""
    return [
        sys.executable,
        str(ROOT / "benchmarks/plan.py"),
        "--part",
        *data_words(8192, work),
        f"runs_dir={work}/runs",
        "name=plan",
        "compile=false",
        "eval=[]",
        "samples.every_n_steps=null",
        "samples.max_new_tokens=1",
        "trainer.accelerator=cpu",
        "trainer.max_steps=3",
        "trainer.log_every_n_steps=1",
        "trainer.val_check_interval=null",
        *(
            ()
            if any(word.startswith("trainer.precision") for word in words)
            else ("trainer.precision=32-true",)
        ),
        *words,
    ]


def train(words: list[str]) -> int:
    """Be train.py; returns its exit code."""
    import llm.jobs.train as job
    from llm.cli.main import main as llm

    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        job.keep_freed_memory = lambda largest_tensor: None
    return llm(["train", *words])


def figures(words: tuple[str, ...], work: Path, threads: int) -> dict[str, float]:
    """Train as the words say; what results.json says of it."""
    shutil.rmtree(work / "runs", ignore_errors=True)
    run(command(words, work), threads)
    entries = json.loads((work / "runs/plan/results.json").read_text())
    return next(entry["metrics"] for entry in entries if entry["evaluation"] == "training")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--as-it-is", action="store_true", help="let train.py keep what it frees")
    parser.add_argument("--part", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one tiny case: whether it works")
    args = parser.parse_args()
    if args.part is not None:
        sys.exit(train(args.part))
    if not args.as_it_is:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    cases = QUICK if args.quick else {name: CASES[name] for name in args.cases}
    print(machine(args.threads))
    rows, errors = [], []
    with tempfile.TemporaryDirectory() as work:
        prepare(8192, Path(work), args.threads)
        for name, words in cases.items():
            seen = figures(words, Path(work), args.threads)
            said, took = seen["planned_peak_bytes"], seen["peak_bytes"]
            errors.append(said / took - 1)
            rows.append([name, f"{said / 1e6:,.0f} MB", f"{took / 1e6:,.0f} MB", f"{errors[-1]:+.1%}"])
            print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
    print(f"\n{table(['model, strategy, micro-batch', 'plan', 'measured', 'error'], rows)}")
    middle = statistics.median(map(abs, errors))
    print(
        f"\nMedian error {middle:.1%}, largest {max(map(abs, errors)):.1%}; {sum(abs(e) <= 0.1 for e in errors)} of {len(errors)} within 10%."
    )


if __name__ == "__main__":
    main()
