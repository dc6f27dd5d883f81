"""The words of commands in tests, data for them, and what is read of the runs that they make."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from llm.train import checkpoint


def changed(words: Sequence[str], *changes: str) -> list[str]:
    """`words` with `changes`, in place of those for the same keys."""
    keys = {change.partition("=")[0] for change in changes}
    return [*(word for word in words if word.partition("=")[0] not in keys), *changes]


def without(words: Sequence[str], *beginnings: str) -> list[str]:
    """`words` but for those that begin so."""
    return [word for word in words if not word.startswith(beginnings)]


def on_pairs(words: Sequence[str], folder: Path) -> list[str]:
    """`words` for 144 pairs of texts, which are written into `folder`."""
    rows = [{"de": f"{n} und {m}", "en": f"{n} and {m}"} for n in range(12) for m in range(12)]
    path = _written(folder / "pairs.jsonl", rows)
    return changed(words, "data=pairs", f"data.paths=[{path}]", "data.text=de", "data.label=en")


def on_labels(words: Sequence[str], folder: Path) -> list[str]:
    """`words` for 80 texts of two labels that are plain to see, which are written into `folder`."""
    rows = [{"body": f"{'so good' if n % 2 else 'too bad'} {n}", "stars": n % 2} for n in range(80)]
    path = _written(folder / "labels.jsonl", rows)
    data = ["data=jsonl", f"data.paths=[{path}]", "data.text=body", "data.label=stars"]
    return changed(words, *data, "data.validation_share=0.2")


def _written(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def weights(run: Path) -> dict[str, Tensor]:
    """The weights of a run's last checkpoint, what stands beside them folded in."""
    return checkpoint.read_model(checkpoint.find(run / "checkpoints", None))[1]
