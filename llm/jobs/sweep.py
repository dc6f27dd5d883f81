"""A sweep: its jobs one after another, each a run in a process of its own, and what came of them side by side."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

import llm
from llm.errors import CheckpointError, ConfigError, UserError
from llm.files import read_json, write_json
from llm.jobs.runs import cells, table
from llm.jobs.show import number
from llm.redaction import redacted
from llm.report import swept
from llm.report.compare import read_runs, write_comparison
from llm.train.resume import BY_IDENTITY, changes
from llm.train.rows import read_metrics_rows
from llm.train.run import Run

RECORD = "sweep.json"
PAGE = "sweep.html"
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class SweepJob:
    """One job: the values that are its own, the words that start it, and the config that these compose to."""

    values: Mapping[str, str]
    words: Sequence[str]
    config: Mapping[str, Any]


class Stopped(UserError):
    """A signal ended a job, and the sweep with it."""

    def __init__(self, exit_code: int, folder: Path) -> None:
        super().__init__(f"{folder}: stopped; the same command goes on from there.")
        self.exit_code = exit_code


class Sweep:
    """A sweep's folder and its jobs; hold it by `with`, so that no second sweep works in it.

    Args:
        folder: where sweep.json, sweep.html and, a folder each, the runs go.
        settings: how jobs are judged: `metric` and `goal`.
        keys: what differs between the jobs.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], keys: Sequence[str]) -> None:
        if any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", *LAUNCHED)):
            raise ConfigError(
                "-m: start a sweep as one process, without a launcher; each job starts its own."
            )
        self.folder, self.keys = folder, list(keys)
        self.metric, self.goal = settings["metric"], settings["goal"]
        self.entries: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(folder / ".lock", timeout=0)

    def __enter__(self) -> "Sweep":
        if Run(self.folder).exists():
            raise ConfigError(f"name={self.folder.name}: {self.folder} is a run; a sweep needs another name.")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise CheckpointError(
                f"Another process sweeps in {self.folder}; wait for it or stop it."
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def run_all(self, jobs: Sequence[SweepJob]) -> None:
        """Run the jobs in their order; one that fails doesn't keep the others from theirs."""
        for job in jobs:
            self._note(job, "waiting")
        for index, job in enumerate(jobs, 1):
            self.run(job, f"{index} of {len(jobs)}")

    def run(self, job: SweepJob, place: str = "") -> float | None:
        """Run a job, or take what it gave before; returns the figure that it is judged by, None where it has none.

        Raises:
            Stopped: a signal ended it.
        """
        folder = Path(job.config["runs_dir"]) / job.config["name"]
        if not is_done(folder, job.config):
            shown = redacted(dict(job.values))
            values = " ".join(shlex.quote(f"{key}={value}") for key, value in shown.items())
            print(f"\nJob {place or len(self.entries) + 1}: {values}", flush=True)
            self._note(job, "running")
            code = start(job.words)
            if code in (130, 143):
                self._note(job, "interrupted")
                raise Stopped(code, self.folder)
            if code:
                self._note(job, "failed")
                return None
        value = figure(folder, self.metric)
        self._note(job, str(Run(folder).record["status"]), value)
        return value

    def _note(self, job: SweepJob, status: str, value: float | None = None) -> None:
        name = job.config["name"]
        entry = {
            "run": str(Path(job.config["runs_dir"]) / name),
            "values": redacted(dict(job.values)),
            "status": status,
        }
        self.entries[name] = {**entry, self.metric: value}
        write_json(
            self.folder / RECORD,
            {"metric": self.metric, "goal": self.goal, "keys": self.keys, "jobs": [*self.entries.values()]},
        )

    def finish(self) -> int:
        """Print the table, the best first, and write the page; returns the exit code."""
        ranked = sorted(self.entries.values(), key=self._rank)
        rows = [_row(entry, self.metric) for entry in ranked]
        print("\n" + "\n".join(table(rows)))
        runs = [Path(entry["run"]) for entry in ranked if Run(Path(entry["run"])).exists()]
        if runs:
            plots = swept.charts(ranked, self.keys, self.metric)
            page = write_comparison(read_runs(runs), self.folder / PAGE, cells, plots)
            print(f"\nPage:  {page}")
        failed = [entry["run"] for entry in ranked if entry["status"] == "failed"]
        if failed:
            print(f"\n{len(failed)} of {len(ranked)} jobs failed; the same command tries them again.")
        return 1 if failed else 0

    def _rank(self, entry: Mapping[str, Any]) -> tuple[bool, float]:
        value = entry[self.metric]
        return (True, 0.0) if value is None else (False, value if self.goal == "minimize" else -value)


def _row(entry: Mapping[str, Any], metric: str) -> dict[str, str]:
    value = entry[metric]
    shown = "-" if value is None else number(value)
    return {"run": entry["run"], **entry["values"], "status": entry["status"], metric: shown}


def show_jobs(jobs: Sequence[SweepJob]) -> int:
    """Print which runs a sweep would make; returns the exit code."""
    if not jobs:
        print("Optuna chooses the jobs while the sweep runs.")
        return 0
    print("\n".join(table([{"run": job.config["name"], **job.values} for job in jobs])))
    print("\nNothing was started. dry_run=true with the words of one of them tells what it takes.")
    return 0


def is_done(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the run in `folder` has finished just this config, so that starting it would change nothing.

    By what is written in the config alone: another text at the same place goes unnoticed until the job is started.
    """
    run = Run(folder)
    if not run.exists() or run.record.get("status") != "finished" or not run.results.exists():
        return False
    wanted, known = redacted(dict(config)), run.config
    # Changed data and tokenizers are resuming's to judge, by their fingerprints.
    same = all(known.get(key) == wanted.get(key) for key in BY_IDENTITY)
    return config["resume"] == "auto" and same and not changes(known, wanted)


def figure(folder: Path, metric: str) -> float | None:
    """A figure of a run by its name: of results.json, as `name` or `evaluation/name`, or else the last of metrics.csv.

    Raises:
        ConfigError: the run has figures, but none of this name.
    """
    run = Run(folder)
    found: dict[str, float] = {}
    for row in read_metrics_rows(run.metrics):
        found |= {name: float(text) for name, text in row.items() if text}
    for entry in reversed(read_json(run.results)):
        named = {f"{entry['evaluation']}/{name}": value for name, value in entry["metrics"].items()}
        found |= named | entry["metrics"]
    if metric not in found:
        raise ConfigError(f"sweep.metric={metric}: {folder} has no such figure. It has {', '.join(found)}.")
    return found[metric]


def start(words: Sequence[str]) -> int:
    """Train in a process of its own and wait for it; returns its exit code, 128 and the number for a signal's.

    Ctrl-C reaches the job by itself, since it stands in the same group; SIGTERM is passed on.
    """
    root = str(Path(llm.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "llm", "train", *words], env={**os.environ, "PYTHONPATH": path}
    )

    def pass_on(signum: int, _: FrameType | None) -> None:
        process.send_signal(signum)

    before = signal.signal(signal.SIGTERM, pass_on), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    return 128 - code if code < 0 else code
