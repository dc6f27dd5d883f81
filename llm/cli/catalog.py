"""What can be chosen: the groups, their choices and the keys of each, read from conf/ without composing anything."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import llm
from llm.cli.safe_yaml import read_yaml
from llm.config import SCHEMAS, known_keys
from llm.config.check import holds_any_number, shown
from llm.config.static import Field
from llm.config.words import ALIASES
from llm.errors import ConfigError

Choice = str | list[str] | None


@cache
def conf_folder() -> Path:
    """Our own conf/: beside the package in a wheel, in the root of a checkout."""
    package = Path(llm.__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def config_folders(given: str | None) -> list[Path]:
    """Our conf/ and, behind it, the folder that the user gave.

    Raises:
        ConfigError: there is no such folder, or it names a choice that is ours already, which would be ignored.
    """
    if given is None:
        return [conf_folder()]
    own = Path(given).resolve()
    if not own.is_dir():
        raise ConfigError(f"--config-dir {given}: there is no such folder.")
    for group, names in group_choices([own]).items():
        for name in names:
            if (conf_folder() / group / f"{name}.yaml").is_file():
                raise ConfigError(
                    f"{own / group / name}.yaml: {group}={name} is taken; give the file another name."
                )
    return [conf_folder(), own]


def group_choices(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Each group (a folder) with its choices (its files), nested ones as `folder/file`, sorted."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for group in (entry for entry in folder.iterdir() if entry.is_dir()):
            names = {path.relative_to(group).with_suffix("").as_posix() for path in group.rglob("*.yaml")}
            found.setdefault(group.name, set()).update(names)
    return {group: sorted(names) for group, names in sorted(found.items()) if names}


@cache
def default_groups(verb: str) -> dict[str, Choice]:
    """The groups that a verb chooses from, with the choice that it, or a verb that it builds on, makes itself."""
    groups: dict[str, Choice] = {}
    for entry in read_yaml(conf_folder() / f"{verb}.yaml").get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            groups |= default_groups(entry)
        elif isinstance(entry, dict):
            groups |= {
                name.removeprefix("optional ").removeprefix("override "): c for name, c in entry.items()
            }
    return groups


def choices_of_verb(verb: str, folders: Sequence[Path]) -> dict[str, list[str]]:
    """The groups that a verb takes, in its order, with their choices."""
    found = group_choices(folders)
    return {group: found[group] for group in default_groups(verb) if group in found}


def choice_file(folders: Sequence[Path], group: str, name: str) -> Path | None:
    """The file of a choice."""
    files = (folder / group / f"{name}.yaml" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def keys_of_choice(verb: str, folders: Sequence[Path], group: str, name: str) -> dict[str, Field]:
    """The dotted keys that a choice brings, such as `data.paths` of `data=text`."""
    file = choice_file(folders, group, name)
    hints = get_type_hints(SCHEMAS[verb], include_extras=True)
    if file is None or group not in hints:
        return {}
    return known_keys(hints[group], read_yaml(file), f"{group}.")


def choices_with_key(verb: str, folders: Sequence[Path], key: str) -> list[str]:
    """Those choices, as `group=choice`, that would have a key which the present ones lack."""
    group = key.partition(".")[0]
    names = choices_of_verb(verb, folders).get(group, [])
    return [f"{group}={name}" for name in names if key in keys_of_choice(verb, folders, group, name)]


def may_be_empty(verb: str, group: str) -> bool:
    """Whether a command may choose nothing of a group: an overlay, or one that holds any number, as `logger` does."""
    hint = get_type_hints(SCHEMAS[verb], include_extras=True).get(group)
    return default_groups(verb)[group] is None or holds_any_number(hint)


def ways_to_write(
    verb: str, folders: Sequence[Path], word: str, value: str, known: Collection[str]
) -> list[str]:
    """What to write for `word=value` where `word` names a choice, or a key of a choice that wasn't made."""
    groups = choices_of_verb(verb, folders)
    keys = [f"{group}.{word}" for group in groups]
    if any(key in known for key in keys):
        return []
    named = [_as_choice(folders, group, word, value) for group in groups if word in groups[group]]
    alias = ALIASES.get(word, "")
    others = [] if alias in known else [alias, *keys]
    return named + [
        f"{choice} {key}={shown(value)}" for key in others for choice in choices_with_key(verb, folders, key)
    ]


def _as_choice(folders: Sequence[Path], group: str, name: str, value: str) -> str:
    file = choice_file(folders, group, name)
    needed = [key for key, given in read_yaml(file).items() if given == "???"] if file else []
    return " ".join([f"{group}={name}", *(f"{group}.{key}={shown(value)}" for key in needed)])


def origin(folders: Sequence[Path], choices: Mapping[str, Choice], key: str) -> Path | None:
    """The chosen file that sets a dotted key, the one with the last word where several do."""
    first, _, rest = key.partition(".")
    overlay = rest if first == "trainer" else ""
    for group, inside in (("debug", key), ("experiment", key), ("strategy", overlay), (first, rest)):
        chosen = choices.get(group)
        for name in chosen if isinstance(chosen, list) else [chosen] if chosen else []:
            file = choice_file(folders, group, name)
            if file is not None and inside in _paths(read_yaml(file)):
                return file
    return None


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}"
        yield from _paths(value, f"{prefix}{name}.")
