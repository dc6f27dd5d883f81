"""Read the text of one value by the type of its key: texts as they were typed, all else in Hydra's grammar."""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from llm.cli.overrides import read_list
from llm.config.check import members
from llm.errors import ConfigError


class Texts:
    """Texts that must come through interpolation untouched: placeholders stand for them until that is done."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def hold(self, text: str) -> str:
        """A placeholder for `text`; nobody can type one, since it holds a NUL."""
        name = f"\0text {len(self._texts)}\0"
        self._texts[name] = text
        return name

    def restore(self, node: Any) -> Any:
        """`node` with the texts back in the places of their placeholders, also where these are part of a text."""
        if isinstance(node, Mapping):
            return {key: self.restore(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.restore(value) for value in node]
        if not isinstance(node, str) or "\0" not in node:
            return node
        return functools.reduce(lambda text, name: text.replace(name, self._texts[name]), self._texts, node)


def read_value(key: str, text: str, annotation: Any, texts: Texts) -> Any:
    """The value that `key=text` gives to a key of type `annotation`.

    A key that takes text, takes what was typed; where it takes a list of texts too, a leading [ begins one. Nothing
    at all means null for a key that may be null or isn't text.

    Raises:
        ConfigError: a list isn't closed, or several values are given at once.
    """
    kinds = _kinds(annotation)
    is_list = any(_is_list_of_text(kind) for kind in kinds)
    if not all(_is_text(kind) or _is_list_of_text(kind) for kind in kinds):
        return None if text == "" else _parse(key, text, texts)
    if is_list and text.startswith("["):
        return [texts.hold(item) for item in read_list(key, text)]
    if text == "" and type(None) in kinds:
        return None
    if any(_is_text(kind) for kind in kinds if kind is not type(None)):
        return texts.hold(text)
    return [texts.hold(text)] if text else []


def takes_any_text(annotation: Any) -> bool:
    """Whether a key of this type takes whatever is typed, so that no comma in it can part two values."""
    return any(kind is str or _is_list_of_text(kind) for kind in _kinds(annotation))


def _kinds(annotation: Any) -> list[Any]:
    return [_bare(kind) for kind in members(annotation)]


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _is_text(kind: Any) -> bool:
    words = get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))
    return kind is str or kind is type(None) or words


def _is_list_of_text(kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    is_list = isinstance(origin, type) and issubclass(origin, Sequence)
    return is_list and all(argument is ... or _is_text(_bare(argument)) for argument in arguments)


def _parse(key: str, text: str, texts: Texts) -> Any:
    """Numbers, true, null, lists and dictionaries; what isn't one stays a text, for the check to judge."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException:
        if text.startswith("[") and not text.rstrip().endswith("]"):
            read_list(key, text)  # says that it isn't closed
        return texts.hold(text)
    if override.is_sweep_override():
        raise ConfigError(f"{key}={text}: this key takes one value; a list is written [a,b].")
    return override.value()
