"""The report of a preparation as one HTML file that opens offline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = "report.html.j2"


def page(name: str, report: Mapping[str, Any]) -> str:
    """The page for a corpus of this name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    lengths = sorted((int(longest), number) for longest, number in report["lengths"].items())
    return environment.get_template(TEMPLATE).render(
        name=name,
        report=report,
        lengths=[(f"{longest:,}", number) for longest, number in lengths],
        languages=sorted(report["languages"].items(), key=lambda item: (-item[1], item[0]))[:20],
    )
