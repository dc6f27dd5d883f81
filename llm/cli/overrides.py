"""The words after a verb: flags, chosen groups and `key=value`s, with an error for each that isn't one of these."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from llm.config.words import RENAMED
from llm.errors import ConfigError

_FLAGS_WITH_VALUE = {
    "--cfg": "cfg",
    "-c": "cfg",
    "--package": "package",
    "-p": "package",
    "--config-dir": "config_dir",
    "-cd": "config_dir",
}
_SWITCHES = {
    "-h": "help",
    "--help": "help",
    "--info": "info",
    "--resolve": "resolve",
    "-m": "multirun",
    "--multirun": "multirun",
}


@dataclass(frozen=True)
class Strange:
    """A word with dashes that is no flag of ours, as typed, and the key and value that it most likely means."""

    typed: str
    key: str
    value: str


@dataclass
class Words:
    """A command line taken apart: `given` holds each key with what stands after its first `=`, as typed."""

    flags: dict[str, str] = field(default_factory=dict)
    given: list[tuple[str, str]] = field(default_factory=list)
    strange: list[Strange] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)

    @cached_property
    def values(self) -> dict[str, str]:
        """The one value of each key.

        Raises:
            ConfigError: a key is given twice, as only a sweep may have it.
        """
        values: dict[str, str] = {}
        for key, value in self.given:
            if key in values:
                raise ConfigError(f"{key}: this is given twice, as {values[key]} and as {value}; keep one.")
            values[key] = value
        return values


def split_words(argv: Sequence[str]) -> Words:
    """Take a command line apart; what fits nowhere is kept, to be refused once the right names are known.

    Raises:
        ConfigError: a key is removed by `~`, or a flag lacks its value.
    """
    words, rest = Words(), list(argv)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            _take_flag(words, word, rest)
        elif "=" in word:
            _take_value(words, word)
        else:
            _refuse_removal(word, word)
            words.bare.append(word)
    return words


def _take_flag(words: Words, word: str, rest: list[str]) -> None:
    name, equals, value = word.partition("=")
    if name in _SWITCHES and not equals:
        words.flags[_SWITCHES[name]] = ""
    elif name in _FLAGS_WITH_VALUE:
        if not equals and not rest:
            raise ConfigError(f"{word}: a value is missing.")
        words.flags[_FLAGS_WITH_VALUE[name]] = value if equals else rest.pop(0)
    else:
        follows = not equals and rest and not rest[0].startswith("-") and "=" not in rest[0]
        value = rest.pop(0) if follows else value
        typed = f"{word} {value}" if follows else word
        words.strange.append(Strange(typed, name.lstrip("-").replace("-", "_"), value or "true"))


def _take_value(words: Words, word: str) -> None:
    key, _, value = word.partition("=")
    key = key.lstrip("+").strip()
    _refuse_removal(word, key)
    words.given.append((RENAMED.get(key, key), value))


def _refuse_removal(word: str, key: str) -> None:
    if key.startswith("~"):
        raise ConfigError(
            f"{word}: keys can't be removed; write {key[1:]}=<another>, or {key[1:]}= where it may be null."
        )


def read_list(key: str, text: str) -> list[str]:
    """`[a b, 'c, d', "e"]` as its items; blanks around an item and the quotes around it don't belong to it.

    Raises:
        ConfigError: the list is not closed.
    """
    if not text.rstrip().endswith("]"):
        raise ConfigError(f"{key}={text}: a leading [ begins a list, and this one isn't closed by ].")
    inside = text.strip()[1:-1]
    items = [match.group(0).strip() for match in _ITEM.finditer(inside)]
    return [
        item[1:-1] if item[:1] in ("'", '"') and item[-1:] == item[:1] else item for item in items if item
    ]


_ITEM = re.compile(r"""\s*(?:'[^']*'|"[^"]*")\s*(?=,|$)|[^,]+""")
