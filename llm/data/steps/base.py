"""What a step is: it takes a document's text and gives it back, changed or not, or says why it is left out."""

import dataclasses
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from llm.data.sources.records import needed, versions


class Result(NamedTuple):
    """What a step made of a text: `text` goes on, None where it is left out; `label` is the reason, or a remark."""

    text: str | None
    label: str = ""


class Step(Protocol):
    """A small, picklable, stateless object that the config orders; it sees one document at a time."""

    def __call__(self, text: str) -> Result:
        """The text that goes on, or none and why."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that decides what it does, for the fingerprint."""
        ...


@dataclasses.dataclass(frozen=True)
class TextStep:
    """A step whose settings are its fields and the versions of the libraries that it calls."""

    libraries: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        needed(type(self).__name__, *self.libraries)

    def settings(self) -> dict[str, Any]:
        """Class, fields and versions."""
        return {"step": type(self).__name__, **dataclasses.asdict(self), **versions(*self.libraries)}


class Words:
    """A text's words, as white space parts them, and its lines; each made when it is asked for and then kept."""

    def __init__(self, text: str) -> None:
        self.words = text.split()
        self.lines = [line.strip() for line in text.split("\n") if line.strip()]
        self.lengths = np.fromiter(map(len, self.words), np.int64, len(self.words))


@lru_cache(maxsize=1)
def words_of(text: str) -> Words:
    """The words of a text, which several steps in a row ask for."""
    return Words(text)
