"""The report of a preparation as one HTML file that opens offline."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm.pages import render_page

TEMPLATE = Path(__file__).with_name("report.html.j2")


def page(name: str, report: Mapping[str, Any]) -> str:
    """The page for a corpus of this name."""
    lengths = sorted((int(longest), number) for longest, number in report["lengths"].items())
    return render_page(
        TEMPLATE,
        name=name,
        report=report,
        overlaps=_overlaps(report["cleaning"]),
        lengths=[(_size(longest), number) for longest, number in lengths],
        languages=sorted(report["languages"].items(), key=lambda item: (-item[1], item[0]))[:20],
    )


def _size(n_bytes: int) -> str:
    """A power of two in words."""
    for unit in ("bytes", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes} {unit}"
        n_bytes //= 1024
    return f"{n_bytes} GiB"


def _overlaps(cleaning: Mapping[str, Any] | None) -> list[tuple[str, int]] | None:
    """Documents by the evaluation set that they overlap with; None where no step looked for that."""
    if cleaning is None or not cleaning["looked_for_overlap"]:
        return None
    found: Counter[str] = Counter()
    for name in cleaning["looked_for_overlap"]:
        tally = cleaning["steps"][name]
        found.update({**tally["dropped"], **tally["remarks"]})
    return found.most_common()
