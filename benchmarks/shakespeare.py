"""What the same wall-clock time buys on a small text: experiment=shakespeare beside nanoGPT's recipe for a CPU.

    python benchmarks/shakespeare.py

The last tenth of tinyshakespeare.txt (in corpora/ of the folder LLM_SHARED_DATA, by default ../shared/data) is held
out, and both are scored on all of it, in bits per byte. The time is of the whole process: start-up, the making of the
vocabulary, training, scoring, and of ours the report too. Without --steps, a short run of ours says how many steps
take as long as the recipe.
"""

import argparse
import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from throughput import rows_of
from timing import ROOT, Figures, Result, interleave, machine, measured, run, table

TEXT = Path(os.environ.get("LLM_SHARED_DATA", ROOT.parent / "shared/data")) / "corpora/tinyshakespeare.txt"
TRIAL_STEPS = 100


def recipe(args: argparse.Namespace) -> Figures:
    """nanoGPT's recipe, as characters.py has it."""
    script = ROOT / "benchmarks/characters.py"
    return measured([sys.executable, script, args.text, "--steps", args.recipe_steps], args.threads)


def ours(args: argparse.Namespace, work: Path, steps: int) -> Figures:
    """train.py anew, vocabulary and shards included; what its evaluation.json says."""
    for folder in work.iterdir():
        shutil.rmtree(folder)
    command = [
        sys.executable,
        ROOT / "train.py",
        *args.words,
        "data=text",
        f"data.paths=[{args.text}]",
        "data.validation_share=0.1",
        f"trainer.max_steps={steps}",
        f"runs_dir={work}/runs",
        f"shards_dir={work}/shards",
        "name=shakespeare",
    ]
    _, figures = run(command, args.threads)
    (entry,) = (
        one
        for one in json.loads((work / "runs/shakespeare/evaluation.json").read_text())
        if one["evaluation"] == "perplexity"
    )
    scores = {"bits_per_byte": entry["metrics"]["bits_per_byte"], "held_out_bytes": entry["metrics"]["bytes"]}
    return {**figures, **scores, "steps": steps}


def steps_within(args: argparse.Namespace, work: Path, seconds: float) -> int:
    """How many steps of ours take so long, start-up and all."""
    trial = ours(args, work, TRIAL_STEPS)
    rows = [row for row in rows_of(work / "runs/shakespeare") if row["tokens_per_second"]]
    tokens_per_step = int(rows[-1]["tokens"]) / int(rows[-1]["step"])
    step = tokens_per_step / float(rows[-1]["tokens_per_second"])
    # The rest is start-up, vocabulary, validation and report.
    rest = trial["seconds"] - TRIAL_STEPS * step
    return max(1, int((seconds - rest) / step))


def show(results: list[Result]) -> str:
    rows = [
        [
            one.name,
            f"{one.median('bits_per_byte'):.4f}",
            f"{one.median('seconds'):.1f}",
            f"{one.median('peak_bytes') / 1e6:.0f} MB",
            f"{one.median('held_out_bytes'):,.0f}",
        ]
        for one in results
    ]
    return table(["", "bits per byte", "seconds in all", "peak memory", "held-out bytes"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of ours; found out where it is left out")
    parser.add_argument("--recipe-steps", type=int, default=2000)
    parser.add_argument("--words", nargs="*", default=["experiment=shakespeare"], help="of train.py")
    parser.add_argument("--quick", action="store_true", help="one round of a few steps: whether it works")
    args = parser.parse_args()
    if not args.text.exists():
        parser.exit(2, f"{args.text} is missing: --text= or LLM_SHARED_DATA says where it is.\n")
    if args.quick:
        args.rounds, args.steps, args.recipe_steps = 1, 20, 20
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        steps = args.steps or steps_within(args, work, recipe(args)["seconds"])
        turns = {
            f"nanoGPT's recipe, {args.recipe_steps:,} steps": functools.partial(recipe, args),
            f"train.py {' '.join(args.words)}, {steps:,} steps": functools.partial(ours, args, work, steps),
        }
        results = interleave(turns, args.rounds)
    print(f"{machine(args.threads)}\n\n{show(results)}")


if __name__ == "__main__":
    main()
