"""What a writer of a format is given and gives back, and the card that tells of an exported model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from llm.model import Transformer
from llm.tokenizer import Tokenizer

Result = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What a writer is told beside the model and its tokenizer: plain values, nothing secret among them.

    Args:
        name: what the run is called.
        out: where the export will stand.
        run: the run's folder.
        checkpoint: the name of the checkpoint that is exported.
        data: the name of what it was trained on.
        steps, samples, tokens: how much it was trained; tokens are None where that is not known.
        settings: the run's composed config.
        results: the entries of its evaluation.json that are of this checkpoint.
        shard_bytes: how large one file of weights may be.
    """

    name: str
    out: Path
    run: Path = Path()
    checkpoint: str = ""
    data: str = ""
    steps: int = 0
    samples: int = 0
    tokens: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[Result] = ()
    shard_bytes: int = 5_000_000_000

    def path(self, name: str) -> Path:
        """Where the file `name` will stand, for the lines to type next: in the folder `out`, or as `out=model.gguf` says."""
        return self.out if self.out.suffix == Path(name).suffix else self.out / name


# Writes the files of one format into an empty folder, and returns the lines to type next. The model is in evaluation
# mode, on the CPU, in the dtype asked for. What the format cannot hold is a ConfigError before the first file is
# written; whatever is raised later, the caller clears the folder away. It need not sync what it writes.
Writer = Callable[[Path, Transformer, Tokenizer, About], list[str]]


def card(model: Transformer, about: About, *, header: Mapping[str, Any], use: str, notes: str) -> str:
    """The README.md of an export: `header` and the results for the hub, then the same for a reader.

    Args:
        model: what is exported.
        about: what is told of it.
        header: the hub's keys, such as library_name and pipeline_tag.
        use: Python that runs it.
        notes: Markdown on what a user of this format must know.
    """
    return _template().render(
        header=dict(header) | _index(about, str(header["pipeline_tag"])),
        about=about,
        parameters=sum(tensor.numel() for tensor in model.parameters()),
        shape=model.config.to_dict(),
        rows=list(_rows(about.results)),
        use=use,
        notes=notes,
    )


@cache
def _template() -> jinja2.Template:
    """The card, compiled."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "yaml": _yaml, "fence": _fence}
    return environment.get_template("card.md.j2")


def _index(about: About, task: str) -> dict[str, Any]:
    """The results as the hub's `model-index` has them."""
    results = [
        {
            "task": {"type": task},
            "dataset": {
                "type": _line(result["data"]),
                "name": _line(f"{result['data']} ({result['split']})"),
            },
            # What is a whole number was counted, not measured.
            "metrics": [
                {"type": name, "value": value}
                for name, value in result["metrics"].items()
                if isinstance(value, float)
            ],
        }
        for result in about.results
    ]
    return {"model-index": [{"name": _line(about.name), "results": results}]} if results else {}


def _rows(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for result in results:
        for name, value in result["metrics"].items():
            yield {**result, "metric": name.replace("_", " "), "value": value}


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _cell(value: Any) -> str:
    """A value as one cell of a Markdown table."""
    text = (
        f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )
    return _line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _line(value: Any) -> str:
    """A text in one line, so that none of its lines ends a header or a table."""
    return " ".join(str(value).split())


def _fence(text: str, language: str) -> str:
    """A fenced block that nothing in it ends."""
    marks = "```"
    while marks in text:
        marks += "`"
    return f"{marks}{language}\n{text.rstrip()}\n{marks}"
