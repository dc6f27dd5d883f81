"""Runs side by side: where their configs differ, and one offline page with their curves over one another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm.files import write_atomically
from llm.pages import render_page
from llm.report.charts import Chart, Series, chart
from llm.report.summary import Summary, read, summarize
from llm.train.rows import Row, read_metrics_rows
from llm.train.run import Run, flatten

TEMPLATE = Path(__file__).with_suffix(".html.j2")
NOT_SET = "(not set)"
# Title, column, whether the axis begins at zero.
CHARTS: tuple[tuple[str, str, bool], ...] = (
    ("Validation loss (nats per token)", "val/loss", False),
    ("Validation bits per byte", "val/bits_per_byte", False),
    ("Training loss (nats per token)", "train/loss", False),
    ("Training bits per byte", "train/bits_per_byte", False),
    ("Learning rate", "lr", True),
    ("Gradient norm, before clipping", "grad_norm", True),
    ("Tokens per second", "tokens_per_second", True),
    ("MFU", "mfu", True),
)


@dataclass(frozen=True)
class Compared:
    """One of the runs: what it is called here, and what its folder holds."""

    label: str
    summary: Summary
    config: dict[str, Any]
    rows: list[Row]


@dataclass(frozen=True)
class Difference:
    """A config key whose values are not all the same, one a run."""

    key: str
    values: list[str]


def read_runs(folders: Sequence[Path]) -> list[Compared]:
    """The runs in these folders; what can't be read of one stands in its summary's `trouble`."""
    return [_read_run(folder, label) for folder, label in zip(folders, labels(folders), strict=True)]


def _read_run(folder: Path, label: str) -> Compared:
    run, summary = Run(folder), summarize(folder)
    config = read(folder / "config.yaml", lambda _: dict(run.config), summary.trouble) or {}
    return Compared(label, summary, config, read(run.metrics, read_metrics_rows, []) or [])


def labels(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: the last parts of its path, as many as tell all of them apart."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts))):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return [str(folder) for folder in folders]


def differences(configs: Sequence[dict[str, Any]]) -> list[Difference]:
    """Where the configs differ, in the order of their keys; a run's own name is no difference."""
    flat = [dict(flatten(config)) for config in configs]
    keys = sorted({key for config in flat for key in config} - {"name"})
    rows = [Difference(key, [_text(config.get(key, NOT_SET)) for config in flat]) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_comparison(
    runs: Sequence[Compared],
    path: Path,
    cells: Callable[[Summary], dict[str, str]],
    swept: Sequence[tuple[str, Chart]] = (),
) -> Path:
    """Write the page.

    Args:
        runs: what is compared.
        path: where the page goes.
        cells: gives a summary's figures by their headings, ready to read.
        swept: charts of what a sweep found, each with the key that it is drawn over.
    """
    by = horizontal(runs)
    content = render_page(
        TEMPLATE,
        runs=[(run, cells(run.summary)) for run in runs],
        differences=differences([run.config for run in runs]),
        charts=charts(runs, by),
        by=by,
        swept=swept,
    )
    write_atomically(path, content)
    return path


def horizontal(runs: Sequence[Compared]) -> str:
    """What the curves are drawn over: tokens where a step is not the same number of them in every run."""
    return "tokens" if len({tokens_per_step(run.rows) for run in runs if run.rows}) > 1 else "step"


def tokens_per_step(rows: Sequence[Row]) -> int:
    """Tokens in a step, by the last row that counts them; 1 where none does."""
    counted = (row for row in reversed(rows) if row.get("tokens") and int(row["step"]) > 0)
    return next((int(row["tokens"]) // int(row["step"]) for row in counted), 1)


def charts(runs: Sequence[Compared], by: str) -> list[Chart]:
    """The charts that have something to show, a curve a run."""
    drawn = (
        chart(title, [Series(run.label, points(run.rows, by, column)) for run in runs], from_zero)
        for title, column, from_zero in CHARTS
    )
    return [one for one in drawn if one is not None]


def points(rows: Sequence[Row], by: str, column: str) -> list[tuple[float, float]]:
    """The points (step or tokens, value) of a column, where it has a value."""
    # Not the column of tokens: a row that only a validation wrote has none.
    scale = tokens_per_step(rows) if by == "tokens" else 1
    return [(int(row["step"]) * scale, float(row[column])) for row in rows if row.get(column)]
