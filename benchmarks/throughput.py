"""Tokens per second of training: train.py as a user runs it beside loops over Hugging Face's and litgpt's GPT-2.

    python benchmarks/throughput.py --litgpt-python .venv-litgpt/bin/python

Every contestant is a process of its own and takes its turn once a round: the same shape, batch, AdamW (fused) and
clipping at 1.0, no dropout. Ours is the whole of train.py, with its data, schedule, bar, metrics.csv and callbacks,
and its tokens per second are those that metrics.csv says after the warm-up; the others train on one batch in memory.
The vocabulary is trained on Python's standard library before anything is timed.
"""

import argparse
import dataclasses
import functools
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from loops import Job
from timing import ROOT, Figures, Result, interleave, machine, measured, notes, paired_ratio, run, table

SHAPES = {
    "13.8M": Job(6, 384, 6, 8192, 256, 4, warm=10, timed=20),
    "124M": Job(12, 768, 12, 50257, 512, 2, warm=4, timed=8),
}
QUICK = {"quick": Job(2, 64, 2, 1024, 64, 4, warm=2, timed=4)}
MODES = {
    "float32": {"precision": "float32"},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}
OTHERS = {
    "Hugging Face GPT2, bare loop": ("huggingface", MODES),
    "Hugging Face Trainer": ("hf_trainer", ("bf16, compiled",)),
    "litgpt GPT, bare loop": ("litgpt", ("bf16, compiled",)),
    "our model, bare loop": ("ours", MODES),
}
REFERENCE = "Hugging Face GPT2, bare loop, float32"


def data_words(vocab_size: int, work: Path) -> list[str]:
    """The words for a corpus that is on every machine, with a vocabulary of some size."""
    return ["data=stdlib", f"tokenizer.vocab_size={vocab_size}", f"shards_dir={work}/shards"]


def train_command(job: Job, work: Path) -> list[str]:
    """The words of train.py for a job."""
    return [
        sys.executable,
        str(ROOT / "train.py"),
        *data_words(job.vocab_size, work),
        f"runs_dir={work}/runs",
        "name=throughput",
        "model=gpt_small",
        f"model.d_model={job.d_model}",
        f"model.n_layers={job.n_layers}",
        f"model.n_heads={job.n_heads}",
        f"model.context_length={job.context_length}",
        f"data.batch_size={job.batch_size}",
        f"compile={str(job.compile).lower()}",
        "logger=csv",
        "eval=[]",
        "samples.every_n_steps=null",
        "samples.max_new_tokens=1",
        "trainer.accelerator=cpu",
        f"trainer.precision={'bf16-mixed' if job.precision == 'bf16' else '32-true'}",
        f"trainer.max_steps={job.warm + job.timed}",
        f"trainer.log_every_n_steps={job.warm}",
        "trainer.val_check_interval=null",
    ]


def ours(job: Job, work: Path, threads: int) -> Figures:
    """Run train.py anew; what its metrics.csv says of the timed steps."""
    folder = work / "runs/throughput"
    shutil.rmtree(folder, ignore_errors=True)
    _, figures = run(train_command(job, work), threads)
    return {**figures, "tokens_per_second": speed_after(folder, job.warm)}


def speed_after(folder: Path, warm: int) -> float:
    """Tokens per second of a run's steps after the first `warm`, logging and bar included."""
    rows = [row for row in rows_of(folder) if int(row["step"]) > warm and row["tokens_per_second"]]
    # Every row stands for as many steps, so the speed of them all is the harmonic mean.
    return statistics.harmonic_mean(float(row["tokens_per_second"]) for row in rows)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv."""
    header, *rows = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def contestants(job: Job, work: Path, args: argparse.Namespace) -> dict[str, Callable[[], Figures]]:
    torch = metadata.version("torch").partition("+")[0]
    wanted = ("float32",) if args.float32 else MODES
    jobs = {mode: dataclasses.replace(job, torch=torch, **MODES[mode]) for mode in wanted}
    chosen = {
        f"ours, train.py, {mode}": functools.partial(ours, one, work, args.threads)
        for mode, one in jobs.items()
    }
    pythons = {"litgpt": args.litgpt_python, "hf_trainer": args.trainer_python}
    for title, (loop, modes) in OTHERS.items():
        for mode in (mode for mode in modes if mode in jobs):
            python = pythons.get(loop, sys.executable)
            command = [python, ROOT / "benchmarks/loops.py", loop, jobs[mode].to_json()]
            chosen[f"{title}, {mode}"] = functools.partial(measured, command, args.threads)
    return chosen


def show(results: list[Result]) -> str:
    reference = next(one for one in results if one.name == REFERENCE)
    rows = [
        [
            one.name,
            f"{one.median('tokens_per_second'):,.0f}",
            f"{paired_ratio(one, reference, 'tokens_per_second'):.2f}",
            f"{one.median('peak_bytes') / 1e9:.2f} GB",
        ]
        for one in results
        if one.rounds
    ]
    return table(["contestant", "tokens/s", "to Hugging Face in float32", "peak memory"], rows)


def prepare(vocab_size: int, work: Path, threads: int) -> None:
    """Train the tokenizer and make the shards, once for all rounds."""
    run([sys.executable, "-m", "llm", "prepare", *data_words(vocab_size, work)], threads)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--float32", action="store_true", help="nothing else, as for a CPU without bfloat16")
    parser.add_argument("--litgpt-python", default=sys.executable, help="of an environment with litgpt")
    parser.add_argument("--trainer-python", default=sys.executable, help="of one with accelerate")
    parser.add_argument("--quick", action="store_true", help="one round of a tiny shape: whether it works")
    args = parser.parse_args()
    shapes = QUICK if args.quick else {name: SHAPES[name] for name in args.shapes}
    print(machine(args.threads))
    for name, job in shapes.items():
        with tempfile.TemporaryDirectory() as work:
            prepare(job.vocab_size, Path(work), args.threads)
            results = interleave(contestants(job, Path(work), args), 1 if args.quick else args.rounds)
        print(f"\n## {name}\n\n{show(results)}\n\n{notes(results)}", flush=True)


if __name__ == "__main__":
    main()
