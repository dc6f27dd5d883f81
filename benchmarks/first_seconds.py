"""How long a person waits for help, for an error, for a list: whole commands, from the shell to the last line.

    python benchmarks/first_seconds.py

Writes benchmarks/first_seconds.md. Pages are measured too, where Chromium is there: their size, and how long it takes
to load and lay them out.
"""

import argparse
import os
import re
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
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--virtual-time-budget=2000",
    "--dump-dom",
]
TINY = [
    "tokenizer=byte",
    "model.d_model=32",
    "model.n_layers=2",
    "model.n_heads=2",
    "model.n_kv_heads=1",
    "model.head_dim=16",
    "model.d_ff=64",
    "model.context_length=32",
    "data.batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.max_steps=200",
    "trainer.val_check_interval=20",
    "trainer.limit_val_batches=2",
    "samples.every_n_steps=50",
    "samples.max_new_tokens=32",
    "data=text",
]


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


def pages(folder: Path) -> list[Path]:
    """Real pages: the report of a run, the comparison of two, and a sweep's."""
    llm, env = [sys.executable, "-m", "llm"], {**os.environ, "PYTHONPATH": str(ROOT)}
    shared = [*TINY, f"data.paths=[{ROOT}/llm/model/*.py]"]
    sweep = [*llm, "train", "-m", *shared, "optimizer.lr=1e-3,3e-3,1e-2", "model.norm=rms,layer", "name=s"]
    subprocess.run(sweep, cwd=folder, env=env, capture_output=True, check=True)
    runs = sorted((folder / "runs/s").glob("*/report.html"))
    two = f"run=[{runs[0].parent},{runs[1].parent}]"
    out = folder / "compare.html"
    subprocess.run([*llm, "runs", two, f"out={out}"], cwd=folder, env=env, capture_output=True, check=True)
    return [runs[0], out, folder / "runs/s/sweep.html"]


def loaded(page: Path, chromium: str, folder: Path) -> float | None:
    """Milliseconds from the start of navigation to the end of the load event, by the browser's own clock."""
    probe = (
        "<script>addEventListener('load', () => setTimeout(() => { document.title = 'ms ' + "
        "performance.getEntriesByType('navigation')[0].loadEventEnd; }))</script></body>"
    )
    copy = folder / f"probe-{page.stem}.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    command = [chromium, *CHROMIUM, f"--user-data-dir={folder}/profile", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<title>ms ([\d.]+)", done.stdout)
    return float(found[1]) if found else None


def page_rows(chromium: str, folder: Path) -> list[str]:
    """A line a page: its size, and the median of five loads."""
    lines = []
    for page in pages(folder):
        times = [ms for _ in range(5) if (ms := loaded(page, chromium, folder)) is not None]
        shown = f"{statistics.median(times):.0f} ms" if times else "not measured"
        lines.append(f"| {page.name} | {page.stat().st_size / 1000:.0f} kB | {shown} |")
    return lines


def main() -> None:
    """Time everything and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5, help="runs of each command")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    lines = [
        "# The first seconds",
        "",
        f"`python benchmarks/first_seconds.py`: {machine(os.cpu_count() or 1)}; load average {os.getloadavg()[0]:.1f} at the start.",
        f"Help has to come within {HELP_BAR} s.",
        "",
        f"| command | median of {args.times} | fastest |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "runs").mkdir()
        for name, command in commands().items():
            taken = seconds(command, Path(folder), args.times)
            lines.append(f"| `{name}` | {statistics.median(taken):.2f} s | {taken[0]:.2f} s |")
            print(lines[-1], flush=True)
    lines += [
        "",
        "Pages of runs of 200 steps; one file each, and nothing is fetched. Load: navigation to the end of",
    ]
    lines += [
        "the load event in headless Chromium, median of 5.",
        "",
        "| page | size | load |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        lines += page_rows(args.chromium, Path(folder))
    PAGE.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
