"""The rows of metrics.csv: their columns, how they are written, and how they are read back; light to import."""

import contextlib
import csv
import io
from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "step",
    "tokens",
    "train/loss",
    "train/bits_per_byte",
    "val/loss",
    "val/bits_per_byte",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "data_wait",
)
FILE = "metrics.csv"
WHOLE = frozenset({"step", "tokens"})

Row = dict[str, str]


def number(name: str, value: Any) -> str:
    """A figure as the shortest text that reads back as the same number."""
    return str(int(value)) if name in WHOLE else repr(float(value))


def line(row: Mapping[str, str]) -> bytes:
    """One line of the file."""
    return (",".join(row.get(name, "") for name in COLUMNS) + "\n").encode()


def read_metrics_rows(path: Any) -> list[Row]:
    """The rows of a metrics.csv, a step's last one where it has several; a damaged line is left out.

    Empty where there is no file.
    """
    if not path.exists():
        return []
    text = path.read_bytes().decode(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = {}
    for row in csv.DictReader(io.StringIO(whole)):
        if is_whole(row):
            rows[int(row["step"])] = row
    return list(rows.values())


def is_whole(row: Mapping[str | None, Any]) -> bool:
    """Whether a parsed row has a step, a place for every column, and numbers alone."""
    if None in row or None in row.values() or not row.get("step", "").isdecimal():
        return False
    with contextlib.suppress(ValueError):
        for value in filter(None, row.values()):
            float(value)
        return True
    return False
