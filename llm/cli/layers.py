"""Which files a choice is made of, and what each sets: `defaults:` and `# @package` as Hydra reads them, in milliseconds."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from llm.cli.safe_yaml import read_yaml

Choice = str | list[str] | None
Folders = tuple[Path, ...]

_PACKAGE = re.compile(r"\A(?:#[^\n]*\n)*?#[ \t]*@package[ \t]+(\S+)")


class Entry(NamedTuple):
    """One of a file's `defaults`: a choice of `group`, the file's own or another, or the file itself, `_self_`."""

    group: str
    name: Choice
    inside: str = ""  # the node, in the file's own, where it stands unless its own file says where
    package: str | None = None  # the same, whatever its own file says
    overrides: bool = False  # whether it replaces a choice rather than makes one

    @property
    def is_self(self) -> bool:
        """Whether it is the place of what the file itself sets."""
        return self.name == "_self_"


@dataclass(frozen=True)
class Layer:
    """One file of a choice: what it `sets`, from the config's root on, and the choices of other groups that it overrides.

    `package` is the dotted node that the file's own keys stand in, empty for the root.
    """

    file: Path
    package: str
    sets: Mapping[str, Any]
    overrides: Mapping[str, Choice]

    def has(self, key: str) -> bool:
        """Whether the file sets a dotted key or something in it."""
        node: Any = self.sets
        for name in key.split("."):
            if not isinstance(node, Mapping) or name not in node:
                return False
            node = node[name]
        return True


def choice_file(folders: Folders, group: str, name: str) -> Path | None:
    """The file of a choice."""
    files = (folder / group / f"{name}.yaml" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def names_of(choice: Choice) -> list[str]:
    """What is chosen of a group: nothing, one or several."""
    return choice if isinstance(choice, list) else [choice] if choice else []


def layers(
    folders: Folders, group: str, name: str, place: str | None = None, usual: str | None = None
) -> tuple[Layer, ...]:
    """The files that a choice is made of, those that it builds on and its own, the last word last.

    It stands at the node `place`, else where its file says, else at `usual`, which is its group. No files where there
    is no such choice.

    Raises:
        ConfigError: a file can't be read, or isn't plain YAML.
    """
    file = choice_file(folders, group, name)
    if file is None:
        return ()
    content, header = _read(file)
    node = next(n for n in (place, header, usual, group.replace("/", ".")) if n is not None)
    listed = list(entries(content, group))
    own = own_layer(file, node, {entry.group: entry.name for entry in listed if entry.overrides})
    parts = ((own,) if entry.is_self else _built_on(folders, node, entry) for entry in listed)
    return tuple(itertools.chain.from_iterable(parts))


def own_layer(file: Path, node: str = "", overrides: Mapping[str, Choice] = MappingProxyType({})) -> Layer:
    """What a file itself sets, apart from what it builds on."""
    content = {key: value for key, value in _read(file)[0].items() if key != "defaults"}
    for name in reversed(node.split(".")) if node else ():
        content = {name: content}
    return Layer(file, node, content, overrides)


def _built_on(folders: Folders, node: str, entry: Entry) -> Iterator[Layer]:
    """The files of one entry of the defaults of a file that stands at `node`."""
    place = None if entry.package is None else _node(node, entry.package)
    for name in () if entry.overrides else names_of(entry.name):
        yield from layers(folders, entry.group, name, place, _node(node, entry.inside))


def entries(content: Mapping[str, Any], group: str = "") -> Iterator[Entry]:
    """The defaults of a file of `group` in their order; the file itself is the last where `_self_` isn't among them."""
    listed = content.get("defaults") or []
    for entry in listed:
        for words, choice in entry.items() if isinstance(entry, dict) else ():
            yield _entry(str(words), choice, group)
        if isinstance(entry, str):
            path, at, package = entry.partition("@")
            folder, _, name = path.rpartition("/")
            yield _entry(f"{folder}{at}{package}", name, group)
    if "_self_" not in listed:
        yield Entry(group, "_self_")


def _entry(words: str, choice: Choice, group: str) -> Entry:
    """The entry `[optional] [override] [/]folder[@package]: choice` of a file of `group`; a leading / is conf/ itself."""
    *marks, path = words.split() or [""]
    folder, at, package = path.partition("@")
    inner = folder.strip("/")
    whole = inner if folder.startswith("/") else "/".join(filter(None, (group, inner)))
    package = package.replace("_here_", "")  # Hydra's word for the file's own node
    return Entry(whole, choice, inner.replace("/", "."), package if at else None, "override" in marks)


def _read(file: Path) -> tuple[dict[str, Any], str | None]:
    """A file's content, and the node that its `# @package` names, from the root on."""
    about = file.stat()
    return _read_once(file, about.st_mtime_ns, about.st_size)


@cache
def _read_once(file: Path, *_state: int) -> tuple[dict[str, Any], str | None]:
    """The same, once for each state of the file: hints ask for all files several times."""
    content = read_yaml(file)
    found = _PACKAGE.match(file.read_text(encoding="utf-8"))
    return content, _node("", found[1]) if found else None


def _node(parent: str, package: str) -> str:
    """The node at `package` in `parent`; `_global_` is the root."""
    return ".".join(filter(None, (parent, package))).rpartition("_global_")[2].removeprefix(".")


def merged(found: Iterable[Layer]) -> dict[str, Any]:
    """What files set together, each over those before it."""
    content: dict[str, Any] = {}
    for layer in found:
        content = _over(content, layer.sets)
    return content


def _over(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{name: _over(below.get(name), value) for name, value in above.items()}}


def paths(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config with its value, nodes included."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        yield f"{prefix}{name}", value
        yield from paths(value, f"{prefix}{name}.")
