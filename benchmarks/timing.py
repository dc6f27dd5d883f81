"""What the benchmarks share: contestants in processes of their own, rounds that take turns, medians and tables."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MISSING = 77  # the exit code of a contestant that lacks a package
SAID = "figures: "

Figures = dict[str, float]


class Skipped(Exception):
    """A contestant that cannot run here, and why."""


@dataclass
class Result:
    """A contestant's figures, round by round, or why there are none."""

    name: str
    rounds: list[Figures] = field(default_factory=list)
    skipped: str | None = None

    def median(self, key: str) -> float:
        """The middle of a figure over the rounds."""
        return statistics.median(figures[key] for figures in self.rounds)


def run(command: Sequence[str | Path], threads: int) -> tuple[str, Figures]:
    """Run a command to its end; its output, and the `seconds`, `cpu_seconds` (user) and `peak_bytes` that it took.

    The caller should be light: what it holds itself counts in a child's peak.
    Raises Skipped on exit code `MISSING`, and RuntimeError, with the output, on any other but 0.
    """
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, env=env
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode == MISSING:
        raise Skipped(text.strip().splitlines()[-1])
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{text[-4000:]}")
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return text, {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime,
        "peak_bytes": usage.ru_maxrss * kilobyte,
    }


def measured(command: Sequence[str | Path], threads: int) -> Figures:
    """Run a command that says its figures by `say`; those beside `run`'s."""
    text, figures = run(command, threads)
    said = [line for line in text.splitlines() if line.startswith(SAID)]
    return {**figures, **json.loads(said[-1].removeprefix(SAID))}


def say(figures: Mapping[str, Any]) -> None:
    """Print figures for the process that measures this one."""
    print(f"\n{SAID}{json.dumps(figures)}", flush=True)


def give_up(reason: str) -> None:
    """End a contestant's process that lacks something."""
    print(reason, flush=True)
    sys.exit(MISSING)


def interleave(contestants: Mapping[str, Callable[[], Figures]], rounds: int) -> list[Result]:
    """Let every contestant run once a round; every other round goes backwards, so that drift favours none."""
    results = {name: Result(name) for name in contestants}
    for number in range(rounds):
        names = list(contestants) if number % 2 == 0 else list(reversed(contestants))
        for name in names:
            if results[name].skipped is None:
                _take_turn(results[name], contestants[name], f"round {number + 1} of {rounds}")
    return list(results.values())


def _take_turn(result: Result, contestant: Callable[[], Figures], when: str) -> None:
    try:
        result.rounds.append(contestant())
        shown = ", ".join(f"{key} {value:,.4g}" for key, value in result.rounds[-1].items())
    except Skipped as reason:
        result.skipped = shown = str(reason)
    print(f"{when}, {result.name}: {shown}", file=sys.stderr, flush=True)


def paired_ratio(result: Result, reference: Result, key: str) -> float:
    """The median over the rounds of a figure over the reference's in the same round."""
    pairs = zip(result.rounds, reference.rounds, strict=True)
    return statistics.median(own[key] / theirs[key] for own, theirs in pairs)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def notes(results: Iterable[Result]) -> str:
    """A line for each contestant that did not run."""
    return "\n".join(f"{one.name} was left out: {one.skipped}" for one in results if one.skipped)


def machine(threads: int) -> str:
    """The machine and the versions, in a line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    bf16 = ", ".join(sorted(flags & {"avx512_bf16", "amx_bf16"})) or "no bf16 instructions"
    versions = f"Python {platform.python_version()}, torch {metadata.version('torch')}"
    name = names[0] if names else platform.processor()
    return f"{os.cpu_count()} cores ({name}; {bf16}), {threads} thread(s), {versions}."
