"""`llm runs`: what runs there are and how they stand; or two and more of them compared."""

import datetime
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm.config import Composed
from llm.errors import CheckpointError, ConfigError
from llm.jobs.show import amount, duration, number
from llm.report.compare import Difference, differences, read_runs, write_comparison
from llm.report.summary import BROKEN, Summary, run_folders, summarize

Config = dict[str, Any]

NONE = "-"
VALUE_WIDTH = 40


def run(composed: Composed) -> int:
    """List the runs of `runs_dir`, or compare those that `run` names; returns the exit code."""
    config = composed.config
    if config["run"] is None:
        return _list(Path(config["runs_dir"]))
    folders = [Path(name) for name in config["run"]]
    _check(folders)
    return _compare(
        folders, Path(config["out"]) if config["out"] else Path(config["runs_dir"]) / "compare.html"
    )


def _check(folders: Sequence[Path]) -> None:
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ConfigError("run: name two or more different runs, such as run=[runs/a,runs/b].")
    for folder in folders:
        if not folder.is_dir():
            raise CheckpointError(f"run={folder}: there is no such folder. llm runs lists the runs.")


def _list(root: Path) -> int:
    if not root.is_dir():
        raise ConfigError(f"runs_dir={root}: there is no such folder.")
    summaries = [summarize(folder) for folder in run_folders(root)]
    if not summaries:
        print(f"There is no run in {root} yet.")
        return 0
    width = shutil.get_terminal_size((100, 24)).columns
    names = [{"run": str(summary.folder.relative_to(root))} for summary in summaries]
    lines = table([name | cells(summary) for name, summary in zip(names, summaries, strict=True)])
    print(lines[0])
    for line, summary in zip(lines[1:], summaries, strict=True):
        print(line)
        for text in (*summary.trouble, *([shortened(summary.sample, width - 8)] if summary.sample else [])):
            print(f"      {text}")
    return 0


def _compare(folders: Sequence[Path], out: Path) -> int:
    runs = read_runs(folders)
    print("\n".join(table([{"run": run.label, **cells(run.summary)} for run in runs])))
    for run in runs:
        for text in run.summary.trouble:
            print(f"      {run.label}: {text}")
    found = differences([run.config for run in runs])
    print("\nConfig, where it differs:" if found else "\nThe configs are the same but for the name.")
    if found:
        print("\n".join(table([_row(row, [run.label for run in runs]) for row in found])))
    print(f"\nPage:  {write_comparison(runs, out, cells)}")
    return 0


def _row(difference: Difference, names: Sequence[str]) -> dict[str, str]:
    values = (shortened(value, VALUE_WIDTH) for value in difference.values)
    return {"key": difference.key, **dict(zip(names, values, strict=True))}


def cells(summary: Summary) -> dict[str, str]:
    """A summary's figures by their headings, ready to read; no two of them in one."""
    shown = {
        "status": summary.status,
        "step": _progress(summary),
        "train loss": _figure(summary.train_loss),
        "val loss": _figure(summary.val_loss),
        "bits/byte": _figure(summary.bits_per_byte),
        "parameters": amount(summary.parameters).replace(" ", "") if summary.parameters else NONE,
        "age": _age(summary.created),
    }
    return dict.fromkeys(shown, NONE) | {"status": BROKEN} if summary.status == BROKEN else shown


def _progress(summary: Summary) -> str:
    step = 0 if summary.step is None else summary.step
    return f"{step:,}" + (f"/{summary.total_steps:,}" if summary.total_steps else "")


def _figure(value: float | None) -> str:
    return NONE if value is None else number(value)


def _age(created: datetime.datetime | None) -> str:
    if created is None:
        return NONE
    return duration(max(0.0, (datetime.datetime.now(datetime.UTC) - created).total_seconds()))


def shortened(text: str, width: int) -> str:
    """A text in one line of at most `width` characters, with what a terminal could obey written out."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= width else line[: max(1, width - 1)] + "…"


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """The heading and a line a row, in columns; the first is flush left, and all but the last are filled up."""
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]]
    lines = [list(rows[0]), *([*row.values()] for row in rows)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
