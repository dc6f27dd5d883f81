"""How our HTML pages are made: one file each, offline, with everything in it that isn't ours escaped."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2


def render_page(template: Path, **content: Any) -> str:
    """The HTML of a template, which may extend or import those beside it and here; `content` is only ever text."""
    return _environment(template.parent).get_template(template.name).render(content)


@cache
def _environment(folder: Path) -> jinja2.Environment:
    """What knows the templates of a folder and keeps each once it is compiled, which takes longer than to fill it in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    return environment


def figure(value: Any) -> str:
    """A value for reading: numbers with separators or five significant digits, all else as a config has it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (abs(value) >= 1e4 and value == value and abs(value) != float("inf")):
        return f"{value:,.0f}"
    return f"{value:.5g}"
