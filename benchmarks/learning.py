"""What an encoder and an encoder-decoder learn from nothing in about five minutes of a laptop's CPU.

    python benchmarks/learning.py
    python benchmarks/learning.py t5_nano

Trains each by `train.py` on the embedded corpus and prints markdown: the validation loss by step, what
`eval=perplexity` then says of all held-out text, and the seconds of the steps alone. Beside it stands what the frequencies
of the training tokens alone give, in nats a token, which a masked loss must come below.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from throughput import rows_of
from timing import ROOT, machine, run, table

from llm.data.corpus import Corpus

SHARED = ["data.batch_size=8", "schedule=wsd", "schedule.decay_ratio=0.5", "trainer.accelerator=cpu"]
MUON = "optimizer=muon optimizer.lr=5e-3 optimizer.adam_lr=1e-2"
MASKED = f"task=masked_lm task.collator.share=0.3 model.context_length=128 {MUON}"
RECIPES = {
    "bert_nano": (1500, MASKED),
    "modern_bert_nano": (1500, MASKED),
    "t5_nano": (750, f"task=span_corruption {MUON}"),
}
MARKS = 12  # of a curve
LOSS, SPEED = "val/loss", "tokens_per_second"


def train(name: str, steps: int, words: list[str], work: Path, threads: int) -> None:
    """Train one."""
    places = [f"runs_dir={work}/runs", f"shards_dir={work}/shards", f"name={name}"]
    often = [f"trainer.max_steps={steps}", f"trainer.val_check_interval={max(1, steps // MARKS)}"]
    command = [sys.executable, ROOT / "train.py", f"model={name}", *SHARED, *words, *often, *places]
    run(command, threads)


def by_frequency(shards: Path) -> float:
    """Nats a held-out token by the frequencies of the training tokens, each counted once more than it is there."""
    corpus = Corpus.open(shards)
    size = corpus.vocab_size
    seen, held_out = (
        np.bincount(np.asarray(stream.tokens), minlength=size) for stream in (corpus.train, corpus.validation)
    )
    shares = (seen + 1) / (seen.sum() + size)
    return float(-(held_out * np.log(shares)).sum() / held_out.sum())


def show(folder: Path) -> str:
    """A run's curve, its seconds and scores."""
    every = rows_of(folder)
    speed = statistics.median(float(row[SPEED]) for row in every if row[SPEED])
    tokens = max(int(row["tokens"]) for row in every if row["tokens"])
    rows = [row for row in every if row[LOSS]]
    curve = table(
        ["step", *(f"{int(row['step']):,}" for row in rows)],
        [["validation loss", *(f"{float(row[LOSS]):.3f}" for row in rows)]],
    )
    (entry,) = json.loads((folder / "evaluation.json").read_text())
    scores = ", ".join(f"{key} {value:,.4g}" for key, value in entry["metrics"].items())
    steps = f"{tokens:,} tokens in {tokens / speed:.0f} seconds of steps, at {speed:,.0f} a second."
    return f"{curve}\n\n{steps} All held-out text: {scores}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(RECIPES), help="which; all without a word")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few steps of each: whether it works")
    args = parser.parse_args()
    print(machine(args.threads))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in args.models:
            steps, words = RECIPES[name]
            train(name, MARKS if args.quick else steps, words.split(), work, args.threads)
            print(f"\n## {name}\n\n`train.py model={name} {' '.join(SHARED)} {words}`\n")
            print(show(work / "runs" / name), flush=True)
            record = json.loads((work / "runs" / name / "run.json").read_text())
            print(f"By frequency alone: {by_frequency(Path(record['data']['folder'])):.3f}", flush=True)


if __name__ == "__main__":
    main()
