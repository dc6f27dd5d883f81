"""Which recipe learns most: one question at a time, by sweeps of `train.py -m` around a base recipe.

    python benchmarks/studies.py nano --work /tmp/studies

Prints markdown: for each question its choices, the bits per byte of held-out text after as many tokens, and the
tokens per second of training. What has finished in the folder of `--work` is not run again. The results and what
followed from them are in benchmarks/studies/.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from throughput import rows_of
from timing import ROOT, machine, table

from llm.jobs.sweep import figure


@dataclass(frozen=True)
class Study:
    """A base recipe and the questions asked around it, each by the words of its sweeps.

    Args:
        metric: what the jobs are judged by, as `sweep.metric` names it.
        base: the words of every job.
        questions: the sweeps of each question; what a sweep doesn't say is as in the base.
    """

    metric: str
    base: list[str]
    questions: dict[str, list[str]]


NANO = Study(
    metric="bits_per_byte",
    base=[
        "optimizer=muon",
        "optimizer.lr=1e-2",
        "schedule=wsd",
        "schedule.decay_ratio=0.5",
        "data.batch_size=8",
        "trainer.max_steps=300",
        "eval=[perplexity]",
        "trainer.val_check_interval=null",
    ],
    questions={
        "optimizer and learning rate": [
            "optimizer=adamw optimizer.lr=1e-3,3e-3,6e-3,1e-2",
            "optimizer.lr=5e-3,1e-2,2e-2,4e-2",
            "optimizer.adam_lr=1e-3,1e-2",
        ],
        "schedule": [
            "schedule=cosine,linear,inverse_sqrt ~schedule.decay_ratio",
            "schedule.decay_ratio=0.2,0.5,0.8",
        ],
        "initialisation": ["model.zero_init_outputs=false,true", "model.init_std=0.01,0.04"],
        "positions": ["model.position=rotary,learned,none"],
        "activation": ["model.activation=swiglu", "model.d_ff=768 model.activation=gelu,relu2"],
        "batch, at the same tokens": [
            "data.batch_size=4 trainer.max_steps=600",
            "data.batch_size=8",
            "data.batch_size=16 trainer.max_steps=150",
            "data.batch_size=32 trainer.max_steps=75",
        ],
        "the best together": [
            "optimizer.lr=5e-3 optimizer.adam_lr=1e-2,2e-2",
            "optimizer.lr=5e-3 optimizer.adam_lr=1e-2 model.zero_init_outputs=true schedule.decay_ratio=0.2,0.5",
        ],
    },
)
GPT_SMALL = Study(
    metric="val/bits_per_byte",
    base=[
        "model=gpt_small",
        "model.context_length=256",
        "data.batch_size=2",
        "trainer.max_steps=80",
        "optimizer.lr=6e-4",
        "eval=[]",
        # The same held-out windows in every job, whatever its batch.
        "trainer.val_check_interval=40",
        "trainer.limit_val_batches=0.05",
    ],
    questions={
        "optimizer and learning rate": [
            "optimizer.lr=1e-4,2e-4",
            "optimizer.lr=3e-4,6e-4,1.5e-3",
            "optimizer=muon optimizer.newton_schulz_dtype=bfloat16 optimizer.lr=6e-4,2e-3,5e-3",
        ],
        "schedule": ["schedule=cosine,wsd"],
        "initialisation": ["model.zero_init_outputs=false,true"],
        "positions": ["model.position=learned,rotary"],
        "activation": ["model.activation=gelu_tanh,relu2"],
        "batch, at the same tokens": [
            "data.batch_size=1 trainer.max_steps=160",
            "data.batch_size=2",
            "data.batch_size=4 trainer.max_steps=40",
        ],
        "the best together": [
            "optimizer.lr=3e-4 model.position=rotary model.activation=relu2 data.batch_size=1 trainer.max_steps=160",
        ],
    },
)
STUDIES = {"nano": NANO, "gpt_small": GPT_SMALL}
SHARED = [
    "compile=true",
    "trainer.accelerator=cpu",
    "samples.every_n_steps=null",
    "samples.max_new_tokens=1",
    "checkpoint.keep_best=false",
    "checkpoint.keep_last=1",
]


def train(study: Study, words: list[str], work: Path) -> list[tuple[dict[str, str], Path]]:
    """Run the jobs of one sweep, or what is left of them; the values that are a job's own, and its folder."""
    name = "_".join(words).replace(",", "_").replace("=", "-")
    is_sweep = any("," in word for word in words)
    switch = ["-m", f"sweep.metric={study.metric}"] if is_sweep else []
    places = [f"runs_dir={work}/runs", f"shards_dir={work}/shards", f"name={name}"]
    # What a sweep says itself, or takes away, replaces the base's word for it.
    said = {word.lstrip("~").partition("=")[0] for word in words}
    base = [word for word in study.base if word.partition("=")[0] not in said]
    kept = [word for word in words if not word.startswith("~")]
    command = [sys.executable, str(ROOT / "train.py"), *switch, *base, *SHARED, *kept, *places]
    with (work / f"{name}.log").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: see {work}/{name}.log")
    if not is_sweep:
        return [({}, work / "runs" / name)]
    jobs = json.loads((work / "runs" / name / "sweep.json").read_text())["jobs"]
    return [(job["values"], Path(job["run"])) for job in jobs]


def speed(folder: Path) -> float:
    """The middle of a run's tokens per second."""
    return statistics.median(
        float(row["tokens_per_second"]) for row in rows_of(folder) if row["tokens_per_second"]
    )


def ask(study: Study, question: str, work: Path) -> str:
    """Answer one question: a table of its choices."""
    rows = []
    for words in study.questions[question]:
        fixed = [word for word in words.split() if "," not in word]
        for values, folder in train(study, words.split(), work):
            choice = " ".join([*fixed, *(f"{key}={value}" for key, value in values.items())])
            rows.append([choice, f"{figure(folder, study.metric):.4f}", f"{speed(folder):,.0f}"])
    return table([question, "bits per byte", "tokens/s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--work", type=Path, required=True, help="where the runs go")
    args = parser.parse_args()
    study, work = STUDIES[args.study], args.work / args.study
    work.mkdir(parents=True, exist_ok=True)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    print(f"{machine(threads)}\n\nBase: `train.py {' '.join(study.base)}`")
    for question in study.questions:
        print(f"\n{ask(study, question, work)}", flush=True)


if __name__ == "__main__":
    main()
