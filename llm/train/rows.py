"""The rows of metrics.csv: their columns, how they are written, and how they are read back; light to import."""

import contextlib
from collections.abc import Mapping, Sequence
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
# Columns behind these begin like this, one a figure of an evaluation, as far as there are any.
EVALUATED = "eval/"
FILE = "metrics.csv"
WHOLE = frozenset({"step", "tokens"})

LONGEST_STEP = 18  # digits; a longer one is no step, and Python refuses to read very long ones

Row = dict[str, str]


def column(split: str, source: str) -> str:
    """The name of the loss of one source of a mixture, in training (`train`) or validation (`val`)."""
    return f"{split}/loss/{source}"


def number(name: str, value: Any) -> str:
    """A figure as the shortest text that reads back as the same number."""
    return str(int(value)) if name in WHOLE else repr(float(value))


def line(row: Mapping[str, str], columns: Sequence[str] = COLUMNS) -> bytes:
    """One line of the file."""
    return (",".join(row.get(name, "") for name in columns) + "\n").encode()


def read_metrics_rows(path: Any) -> list[Row]:
    """The rows of a metrics.csv, a step's last one where it has several; a damaged line is left out.

    Empty where there is no file.
    """
    if not path.is_file():
        return []
    # Not the csv module: nothing is quoted here, and a file that isn't ours makes it raise.
    lines = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    cells = [line.rstrip("\r").split(",") for line in lines]
    rows = (dict(zip(cells[0], row, strict=True)) for row in cells[1:] if len(row) == len(cells[0]))
    return list({int(row["step"]): row for row in rows if is_whole(row)}.values())


def is_whole(row: Mapping[str, str]) -> bool:
    """Whether a row has a step, and numbers alone."""
    step = row.get("step", "")
    if not step.isdecimal() or len(step) > LONGEST_STEP:
        return False
    with contextlib.suppress(ValueError):
        for value in filter(None, row.values()):
            float(value)
        return True
    return False
