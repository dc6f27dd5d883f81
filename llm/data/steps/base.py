"""What a step is: it takes a document's text and gives it back, changed or not, or says why it is left out."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from llm.data.files.cutting import stretches
from llm.data.sources.records import needed, versions
from llm.errors import ConfigError

# Bound of memory: characters whose words are held at once. A list of words is twelve times as large as its text.
CHARACTERS_AT_ONCE = 1 << 20


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


def check_order(step: TextStep, least: str, most: str) -> None:
    """Raise ConfigError where a step's least is above its most, so that no document could stay; None is no limit."""
    low, high = getattr(step, least), getattr(step, most)
    if low is not None and high is not None and low > high:
        raise ConfigError(
            f"data.steps.<name>.{least}={low}: this is above {most}={high}, and {type(step).__name__} would leave no "
            f"document. Lower it, or raise {most}."
        )


class Words:
    """A text's words, as white space parts them, and its lines; made when they are asked for and kept, if not too many."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def lines(self) -> list[str]:
        """The lines that aren't blank, without white space around them."""
        return [stripped for line in self._text.split("\n") if (stripped := line.strip())]

    @cached_property
    def lengths(self) -> np.ndarray:
        """The characters of each word (w,)."""
        return np.concatenate([np.fromiter(map(len, some), np.int32, len(some)) for some in self.words()])

    def words(self) -> Iterable[list[str]]:
        """The words in order, those of a stretch of the text at a time."""
        if len(self._text) <= CHARACTERS_AT_ONCE:
            return [self._few]
        return (part.split() for part in stretches(self._text, CHARACTERS_AT_ONCE))

    @cached_property
    def _few(self) -> list[str]:
        return self._text.split()


@lru_cache(maxsize=1)
def words_of(text: str) -> Words:
    """The words of a text, which several steps in a row ask for."""
    return Words(text)
