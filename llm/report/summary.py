"""What can be said of a run at a glance, read from its folder, whatever state that is in."""

import datetime
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llm.errors import CheckpointError
from llm.files import read_object
from llm.train.rows import Row, read_metrics_rows
from llm.train.run import RECORD, Run

# Any of these makes a folder a run's, also where its record is gone.
MARKS = frozenset({RECORD, "config.yaml", "metrics.csv", "checkpoints", "samples.jsonl"})
BROKEN = "broken"
LARGEST_COUNT = 1 << 63
READ_ERRORS = (
    OSError,
    ValueError,
    OverflowError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    yaml.YAMLError,
    CheckpointError,
)
# An interrupted sample is at the file's end, and one line of it is enough.
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Summary:
    """A run in figures; what it hasn't got is None, and `trouble` names what can't be read.

    `status` is running, interrupted, finished, failed or broken. Losses are in nats per token, `bits_per_byte` is
    of the last validation, `created` is in UTC.
    """

    folder: Path
    status: str
    step: int | None = None
    total_steps: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    bits_per_byte: float | None = None
    parameters: int | None = None
    created: datetime.datetime | None = None
    sample: str | None = None
    trouble: list[str] = field(default_factory=list)


def run_folders(root: Path) -> list[Path]:
    """The run folders under `root`, at any depth but not inside one another, sorted by name."""
    return sorted(_walk(root))


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        if MARKS & {*folders, *files} and Path(folder) != root:
            folders.clear()
            yield Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]


def summarize(folder: Path) -> Summary:
    """What the folder tells of its run; nothing that is missing or damaged raises."""
    trouble: list[str] = []
    run = Run(folder)
    record = read(run.folder / RECORD, read_record, trouble)
    if record is None and not trouble:
        trouble.append(f"it holds no {RECORD}")
    rows = read(run.metrics, read_metrics_rows, trouble) or []
    sample = read(run.samples, last_sample, trouble)
    facts: dict[str, Any] = {} if record is None else read_facts(record, trouble)
    return Summary(
        folder,
        BROKEN if record is None else status(run, record),
        step=_last(rows, "step", int),
        train_loss=_last(rows, "train/loss", float),
        val_loss=_last(rows, "val/loss", float),
        bits_per_byte=_last(rows, "val/bits_per_byte", float),
        sample=sample,
        trouble=trouble,
        **facts,
    )


def status(run: Run, record: dict[str, Any]) -> str:
    """What the record says, checked against the lock: a process that was killed could not write that it ended."""
    if run.held():
        return "running"
    said = str(record.get("status", BROKEN))
    return "interrupted" if said == "running" else said


def read(path: Path, reader: Callable[[Path], Any], trouble: list[str]) -> Any:
    """What `reader` makes of a file; None where there is none, and where it is damaged, which `trouble` then tells."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        return reader(path) if path.exists() else None
    except READ_ERRORS as error:
        trouble.append(f"{path.name} can't be read: {error}")
        return None


def read_record(path: Path) -> dict[str, Any]:
    """run.json, which must hold a JSON object."""
    return read_object(path)


def read_facts(record: dict[str, Any], trouble: list[str]) -> dict[str, Any]:
    """The figures of a summary that run.json has."""
    facts: dict[str, Any] = {}
    readers: dict[str, Callable[[], Any]] = {
        "total_steps": lambda: count(record["derived"]["max_steps"]),
        "parameters": lambda: count(record["parameters"]),
        "created": lambda: datetime.datetime.fromisoformat(record["created"]).astimezone(datetime.UTC),
    }
    for name, reader in readers.items():
        try:
            facts[name] = reader()
        except READ_ERRORS as error:
            trouble.append(f"{RECORD} has no good {name} ({type(error).__name__}: {error})")
    return facts


def count(value: Any) -> int:
    """A number of things; ValueError where it is more than could be counted."""
    number = int(value)
    if not 0 <= number < LARGEST_COUNT:
        raise ValueError(f"{number:.3e} is no count")
    return number


def last_sample(path: Path) -> str | None:
    """Prompt and text of the last whole line of samples.jsonl."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").split("\n")[:-1]
    if not lines:
        return None
    sample = json.loads(lines[-1])
    return f"{sample['prompt']}{sample['text']}"


def _last(rows: Sequence[Row], column: str, kind: Callable[[str], Any]) -> Any:
    return next((kind(row[column]) for row in reversed(rows) if row.get(column)), None)
