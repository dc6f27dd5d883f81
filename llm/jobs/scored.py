"""What an evaluation found, and where a run keeps it: evaluation.json, and each example in outputs/."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm.evaluation import Result, Row
from llm.evaluation.result import metrics_of, scores_of
from llm.evaluation.significance import intervals
from llm.files import write_json_lines

Entry = dict[str, Any]


class Scored(NamedTuple):
    """An entry of evaluation.json, and the examples that it is of."""

    entry: Entry
    rows: Sequence[Row]

    @classmethod
    def of(cls, name: str, data: str, split: str, checkpoint: str, result: Result) -> "Scored":
        """What an evaluation gave, with the 95% intervals of those figures that are made of examples."""
        entry = {
            "evaluation": name,
            "data": data,
            "split": split,
            "metrics": result.metrics,
            "examples": result.examples,
            "checkpoint": checkpoint,
            **result.details,
        }
        if len(result.rows) > 1:
            known = [metric for metric in metrics_of(result.rows) if metric in result.metrics]
            found = intervals(np.stack([scores_of(result.rows, metric) for metric in known], 1))
            entry["intervals"] = dict(zip(known, found.tolist(), strict=True))
        return cls(entry, result.rows)


def write_outputs(folder: Path, found: Sequence[Scored]) -> list[Scored]:
    """Write the examples of each entry, a line of JSON each, and say in the entry where they are."""
    kept = []
    for one in found:
        entry = dict(one.entry)
        if one.rows:
            entry["outputs"] = f"outputs/{_file_name(entry)}"
            write_json_lines(folder / entry["outputs"], one.rows)
        kept.append(Scored(entry, one.rows))
    return kept


def _file_name(entry: Entry) -> str:
    parts = [str(entry[name]) for name in ("evaluation", "data", "split", "checkpoint")]
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts) + ".jsonl"
