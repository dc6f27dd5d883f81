"""The formats that a model is exported in: what a writer of one is given, what it gives back, and the table of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm.model import Transformer
from llm.tokenizer import Tokenizer


@dataclass(frozen=True)
class About:
    """What a writer is told beside the model and its tokenizer: plain values, nothing secret among them.

    `settings` are the run's composed config with dotted keys, `results` the entries of its evaluation.json that are of
    the exported checkpoint, `sample` a text that the model wrote.
    """

    name: str
    out: Path
    checkpoint: str = ""
    data: str = ""
    steps: int = 0
    tokens: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[Mapping[str, Any], ...] = ()
    sample: str = ""
    shard_bytes: int = 5_000_000_000

    def path(self, name: str) -> Path:
        """Where the file `name` will stand, for the lines to type next: in the folder `out`, or as `out=model.gguf` says."""
        return self.out if self.out.suffix == Path(name).suffix else self.out / name


# Writes the files of one format into an empty folder, and returns the lines to type next. The model is in evaluation
# mode, on the CPU, in the dtype asked for. What the format cannot hold is a ConfigError before the first file is
# written; whatever is raised later, the caller clears the folder away. Links and folders inside are not needed.
Writer = Callable[[Path, Transformer, Tokenizer, About], list[str]]

FORMATS: dict[str, Writer] = {}
