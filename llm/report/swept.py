"""What a sweep found, drawn: its figure over each key that differs, a line for each choice of the others."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm.report.charts import Chart, chart_over_choices


def charts(jobs: Sequence[Mapping[str, Any]], keys: Sequence[str], metric: str) -> list[tuple[str, Chart]]:
    """A chart for each key over which something can be drawn, with that key.

    Args:
        jobs: each with its `values` by key and its figure by the name of the metric, None where it has none.
        keys: what differs between the jobs.
        metric: the figure's name.
    """
    judged = [job for job in jobs if job[metric] is not None]
    drawn = ((key, chart_over_choices(f"{metric} by {key}", lines(judged, key, metric))) for key in keys)
    return [(key, chart) for key, chart in drawn if chart is not None]


def lines(jobs: Sequence[Mapping[str, Any]], key: str, metric: str) -> dict[str, list[tuple[str, float]]]:
    """The points (value of `key` as typed, figure) of each choice of the other keys."""
    found: dict[str, list[tuple[str, float]]] = {}
    for job in jobs:
        others = [f"{other}={value}" for other, value in job["values"].items() if other != key]
        found.setdefault(" ".join(others) or metric, []).append((job["values"][key], float(job[metric])))
    return found
