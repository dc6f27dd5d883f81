"""How long a person waits for help, for an error, for a list: whole commands, from the shell to the last line.

    python benchmarks/first_seconds.py

Writes benchmarks/first_seconds.md; benchmarks/pages.py measures the pages.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import ROOT, machine

from llm.cli.main import VERBS

PAGE = Path(__file__).with_suffix(".md")
HELP_BAR = 1.5


def commands() -> dict[str, list[str]]:
    """What is timed, by what a person types; the bar holds for those that only tell."""
    train = [sys.executable, str(ROOT / "train.py")]
    llm = [sys.executable, "-m", "llm"]
    told = {"python train.py --help": [*train, "--help"], "python -m llm": llm}
    told |= {f"llm {verb} --help": [*llm, verb, "--help"] for verb in VERBS}
    others = {
        "python train.py trainer.max_step=5": [*train, "trainer.max_step=5"],
        "python train.py --cfg job": [*train, "--cfg", "job"],
        "llm completion bash": [*llm, "completion", "bash"],
        "llm runs": [*llm, "runs"],
        "python train.py dry_run=true": [*train, "dry_run=true"],
        "llm doctor": [*llm, "doctor"],
    }
    return told | others


def seconds(command: list[str], folder: Path, times: int) -> list[float]:
    """The wall time of each of `times` runs, ascending."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)
        taken.append(time.perf_counter() - begun)
    return sorted(taken)


def main() -> None:
    """Time everything and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5, help="runs of each command")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    lines = [f"| command | median of {args.times} | fastest |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "runs").mkdir()
        for name, command in commands().items():
            taken = seconds(command, Path(folder), args.times)
            lines.append(f"| `{name}` | {statistics.median(taken):.2f} s | {taken[0]:.2f} s |")
            print(lines[-1], flush=True)
    about = [
        "# The first seconds",
        "",
        f"`python benchmarks/first_seconds.py`: {machine(os.cpu_count() or 1)}",
        f"Load average {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end. Help has to come",
        f"within {HELP_BAR} s. A dry run and the doctor import torch and Lightning, and the doctor compiles a function.",
        "",
    ]
    PAGE.write_text("\n".join([*about, *lines, ""]), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
