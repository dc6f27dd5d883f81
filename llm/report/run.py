"""report.html: a run's curves, figures and samples as one file that opens offline."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm.files import read_json, write_atomically
from llm.pages import figure, render_page
from llm.report.charts import Chart, Series, chart
from llm.report.summary import read, read_record
from llm.train.rows import FILE as METRICS
from llm.train.rows import Row, read_metrics_rows
from llm.train.rows import column as rows_column

FILE = "report.html"
TEMPLATE = Path(__file__).with_suffix(".html.j2")
# What a loss is of where a model has labels, by what they are of.
LOSSES = {
    "text": "nats per text",
    "words": "nats per word",
    "answer": "nats per edge of an answer",
    "number": "squared error",
}
# Title, the columns by the names of their lines, and whether the axis begins at zero.
CHARTS: tuple[tuple[str, dict[str, str], bool], ...] = (
    ("Loss ({loss})", {"training": "train/loss", "validation": "val/loss"}, False),
    ("Bits per byte", {"training": "train/bits_per_byte", "validation": "val/bits_per_byte"}, False),
    ("Learning rate", {"learning rate": "lr"}, True),
    ("Gradient norm", {"before clipping": "grad_norm"}, True),
    ("Tokens per second", {"all devices": "tokens_per_second"}, True),
    ("MFU and data wait (shares)", {"MFU": "mfu", "data wait": "data_wait"}, True),
)


def write_report(run_folder: Path) -> Path:
    """Write report.html from what the run's folder holds; returns its path.

    Every part is optional: what is missing is left out, and what can't be read is named in the report.
    """
    path = Path(run_folder) / FILE
    write_atomically(path, render(Path(run_folder)))
    return path


def render(folder: Path) -> str:
    """The report's HTML. All of it is escaped: names, config and samples are only ever text."""
    notes: list[str] = []
    rows = read(folder / METRICS, read_metrics_rows, notes) or []
    record = read(folder / "run.json", read_record, notes) or {}
    entries = [
        entry for name in ("results", "evaluation") for entry in entries_of(folder / f"{name}.json", notes)
    ]
    return render_page(
        TEMPLATE,
        name=str(record.get("name", folder.resolve().name)),
        status=record.get("status"),
        tiles=tiles(rows),
        charts=charts(rows, record),
        evaluations=unique([entry for entry in entries if entry["metrics"]]),
        samples=by_step(read(folder / "samples.jsonl", read_samples, notes) or []),
        tables=tables(record),
        config=read(folder / "config.yaml", lambda path: path.read_text(encoding="utf-8"), notes),
        notes=notes,
    )


def entries_of(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The entries of an evaluation.json or results.json, each with the keys that the report shows."""
    blank = {"evaluation": "", "data": "", "split": "", "checkpoint": "", "metrics": {}, "intervals": {}}
    return read(path, lambda file: [{**blank, **entry} for entry in read_json(file)], notes) or []


def unique(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries without those that say the same as an earlier one."""
    return list({json.dumps(entry, sort_keys=True, default=str): entry for entry in entries}.values())


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The lines of samples.jsonl; a last one that was cut short is left out.

    Raises:
        ValueError, KeyError: another line isn't a sample.
    """
    # Not splitlines: what a model writes can hold other line ends, which JSON leaves as they are.
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    samples = [json.loads(line) for line in lines if line]
    return [{"step": int(s["step"]), "prompt": str(s["prompt"]), "text": str(s["text"])} for s in samples]


def by_step(samples: Sequence[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    """Samples grouped by their step, the newest first."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault(sample["step"], []).append(sample)
    return sorted(groups.items(), key=lambda group: group[0], reverse=True)


def column(rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """The points (step, value) of a column, where it has a value."""
    return [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]


def charts(rows: Sequence[Row], record: dict[str, Any]) -> list[Chart]:
    """The charts that have something to show, of a run by what its run.json says."""
    model = record.get("model")
    labelled = str(model.get("labelled")) if isinstance(model, dict) and model.get("labels") else None
    loss = LOSSES.get(labelled or "", "nats per token")
    drawn = (
        chart(
            title.replace("{loss}", loss),
            [Series(name, column(rows, key)) for name, key in lines.items()],
            from_zero,
        )
        for title, lines, from_zero in (*CHARTS, *_by_source(rows))
    )
    return [one for one in drawn if one is not None]


def _by_source(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, str], bool]]:
    """The charts of a mixture: the losses of its sources, in training and in validation."""
    for split, title in (("train", "Training"), ("val", "Validation")):
        begin = rows_column(split, "")
        names = {key.removeprefix(begin): key for row in rows[:1] for key in row if key.startswith(begin)}
        yield f"{title} loss by source (nats per token)", names, False


def tiles(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The figures at the top: what, how much, and what to know about it."""
    shown = []
    for name, key in (("Steps", "step"), ("Tokens", "tokens")):
        if values := [value for _, value in column(rows, key)]:
            shown.append((name, f"{values[-1]:,.0f}", ""))
    if losses := column(rows, "train/loss"):
        shown.append(("Training loss", figure(losses[-1][1]), f"step {losses[-1][0]:,}"))
    if validations := column(rows, "val/bits_per_byte"):
        step, best = min(validations, key=lambda point: point[1])
        shown.append(("Validation bits per byte", figure(best), f"best, step {step:,}"))
    elif losses := column(rows, "val/loss"):  # of a task that bits per byte say nothing of
        step, best = min(losses, key=lambda point: point[1])
        shown.append(("Validation loss", figure(best), f"best, step {step:,}"))
    if speeds := [value for _, value in column(rows, "tokens_per_second")]:
        shown.append(("Tokens per second", figure(statistics.median(speeds)), "median"))
    if shares := [value for _, value in column(rows, "mfu")]:
        shown.append(("MFU", f"{statistics.median(shares):.1%}", "median"))
    return shown


def tables(record: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """run.json as tables of two columns: what stands at its top, then one for each part."""
    top = [(key, figure(value)) for key, value in record.items() if not isinstance(value, dict | list)]
    parts = [
        (key.replace("_", " ").capitalize(), flat(value))
        for key, value in record.items()
        if isinstance(value, dict | list) and value
    ]
    return [(name, lines) for name, lines in [("Run", top), *parts] if lines]


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of a dotted name and a text."""
    if isinstance(value, dict):
        return [
            line for key, item in value.items() for line in flat(item, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [
            line
            for i, item in enumerate(value)
            for line in flat(item, f"{name}.{i + 1}" if name else str(i + 1))
        ]
    return [(name, ", ".join(map(figure, value)) if isinstance(value, list) else figure(value))]
