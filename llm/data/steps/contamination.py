"""Overlap with evaluation sets, told in the report or left out."""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llm.bounds import Count
from llm.data.files.inputs import find_files
from llm.data.steps.base import Result, TextStep
from llm.data.steps.hashing import UInts, runs, word_hashes
from llm.errors import ConfigError, DataError

KEY = "data.steps.<name>.paths"


@dataclass(frozen=True)
class Contamination(TextStep):
    """Finds documents that share a run of `ngram` words with an evaluation set (13 as in GPT-3: Brown et al., 2020).

    `paths` are files of text, or of JSON lines, of which each text in each line counts. Such documents are told in
    the report by the file that they share it with, and left out where `action` is `drop`. A text shorter than `ngram`
    words has no run and can't be found.
    """

    paths: Sequence[str]
    ngram: Count = 13
    action: Literal["report", "drop"] = "report"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action not in ("report", "drop"):
            raise ConfigError(f"data.steps.<name>.action={self.action} is not one of report, drop.")

    def settings(self) -> dict[str, Any]:
        """The contents of the evaluation sets rather than where they lie."""
        contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self._files]
        return {"step": "Contamination", "sets": contents, "ngram": self.ngram, "action": self.action}

    def __call__(self, text: str) -> Result:
        """The text, with the first set that it overlaps with for a remark or a reason."""
        known, owners = self._index
        hashes = runs(word_hashes(text), self.ngram)
        at = np.searchsorted(known, hashes)
        at = at[known[np.minimum(at, len(known) - 1)] == hashes] if len(known) else at[:0]
        if not len(at):
            return Result(text)
        label = f"overlaps with {Path(self._files[owners[at[0]]]).name}"
        return Result(text if self.action == "report" else None, label)

    @cached_property
    def _files(self) -> list[str]:
        return find_files(list(self.paths), KEY)

    @cached_property
    def _index(self) -> tuple[UInts, np.ndarray]:
        """The runs of all sets, each once, and the number of the file that each is from."""
        hashes = [_runs_of(path, self.ngram) for path in self._files]
        owners = np.repeat(np.arange(len(hashes)), list(map(len, hashes)))
        unique, first = np.unique(np.concatenate(hashes), return_index=True)
        return unique, owners[first]


def _runs_of(path: str, length: int) -> UInts:
    """The runs of `length` words in the texts of a file."""
    hashes = (word_hashes(text) for text in _texts(path))
    found = [runs(words, length) for words in hashes if len(words) >= length]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def _texts(path: str) -> Iterator[str]:
    try:
        data = gzip.decompress(Path(path).read_bytes()) if path.endswith(".gz") else Path(path).read_bytes()
        text = data.decode("utf-8")
        if path.removesuffix(".gz").endswith((".jsonl", ".json")):
            whole = (
                [json.loads(text)]
                if path.removesuffix(".gz").endswith(".json")
                else map(json.loads, text.splitlines())
            )
            yield from (found for value in whole for found in _strings(value))
        else:
            yield text
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{KEY}: {path} can't be read: {error}.") from error


def _strings(value: Any) -> Iterator[str]:
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
