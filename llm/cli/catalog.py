"""What can be chosen: the groups, their choices and the keys of each, read from conf/ without Hydra, which takes longer."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import get_type_hints

import llm
from llm.cli.layers import (
    Choice,
    Folders,
    Layer,
    choice_file,
    entries,
    layers,
    merged,
    names_of,
    own_layer,
    paths,
)
from llm.cli.overrides import read_list
from llm.cli.safe_yaml import read_yaml
from llm.config import SCHEMAS, known_keys
from llm.config.check import holds_any_number, shown
from llm.config.static import Field
from llm.config.words import ALIASES
from llm.errors import ConfigError


@cache
def conf_folder() -> Path:
    """Our own conf/: beside the package in a wheel, in the root of a checkout."""
    package = Path(llm.__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def config_folders(given: str | None) -> Folders:
    """Our conf/ and, behind it, the folder that the user gave.

    Raises:
        ConfigError: there is no such folder, or it names a choice that is ours already, which would be ignored.
    """
    if given is None:
        return (conf_folder(),)
    own = Path(given).resolve()
    if not own.is_dir():
        raise ConfigError(f"--config-dir {given}: there is no such folder.")
    for group, names in group_choices([own]).items():
        for name in names:
            if (conf_folder() / group / f"{name}.yaml").is_file():
                raise ConfigError(
                    f"{own / group / name}.yaml: {group}={name} is taken; give the file another name."
                )
    return (conf_folder(), own)


def state(folders: Folders) -> Hashable:
    """What differs where a file of the folders was changed, came or went: the size and time of each."""
    paths = (path for folder in folders for path in folder.rglob("*.yaml") if path.is_file())
    files = ((path, path.stat()) for path in paths)
    return frozenset((str(path), about.st_mtime_ns, about.st_size) for path, about in files)


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
    for entry in entries(read_yaml(conf_folder() / f"{verb}.yaml")):
        if entry.group:
            groups[entry.group] = entry.name
        elif not entry.is_self:
            groups |= default_groups(str(entry.name))
    return groups


def choices_of_verb(verb: str, folders: Folders) -> dict[str, list[str]]:
    """The groups that a verb takes, in its order, with their choices."""
    found = group_choices(folders)
    return {group: found[group] for group in default_groups(verb) if group in found}


def choices(verb: str, folders: Folders, given: Mapping[str, str]) -> dict[str, Choice]:
    """The choice of each group of a verb: the `given` one, else what a chosen overlay overrides it by, else its default.

    Raises:
        ConfigError: a list of choices is not closed.
    """
    asked = {group: _read(group, given[group]) for group in default_groups(verb) if group in given}
    overridden: dict[str, Choice] = {}
    for group, choice in (default_groups(verb) | asked).items():
        for name in names_of(choice):
            for layer in layers(folders, group, name):
                overridden |= layer.overrides
    return default_groups(verb) | overridden | asked


def _read(group: str, typed: str) -> Choice:
    if typed in ("", "null"):
        return None
    return read_list(group, typed) if typed.startswith("[") else typed


def layers_of(verb: str, folders: Folders, chosen: Mapping[str, Choice]) -> list[Layer]:
    """The files that a verb's config is composed of under those choices, the last word last."""
    file = conf_folder() / f"{verb}.yaml"
    found: list[Layer] = []
    for entry in entries(read_yaml(file)):
        if entry.group:
            for name in names_of(chosen.get(entry.group)):
                found += layers(folders, entry.group, name)
        else:
            found += [own_layer(file)] if entry.is_self else layers_of(str(entry.name), folders, chosen)
    return found


def keys_of_choice(verb: str, folders: Folders, group: str, name: str) -> dict[str, Field]:
    """The dotted keys that a choice brings, such as `data.paths` of `data=text`, wherever its files set them."""
    hints = get_type_hints(SCHEMAS[verb], include_extras=True)
    known: dict[str, Field] = {}
    for node, values in merged(layers(folders, group, name)).items():
        if node in hints:
            known |= known_keys(hints[node], values, f"{node}.")
    return known


def choices_with_key(verb: str, folders: Folders, key: str) -> list[str]:
    """Those choices, as `group=choice`, that would have a key which the present ones lack.

    What builds on one of them is left out: there are many, and the key is not theirs.
    """
    node = key.rpartition(".")[0]
    files: dict[str, list[Path]] = {}
    for group, names in choices_of_verb(verb, folders).items():
        for name in names:
            found = layers(folders, group, name)
            sets = any(layer.has(node) for layer in found)
            if sets and key in keys_of_choice(verb, folders, group, name):
                files[f"{group}={name}"] = [layer.file for layer in found]
    own = {choice_file(folders, *choice.split("=")) for choice in files}
    return [choice for choice, parts in files.items() if len(own.intersection(parts)) == 1]


def may_be_empty(verb: str, group: str) -> bool:
    """Whether a command may choose nothing of a group: an overlay, or one that holds any number, as `logger` does."""
    hint = get_type_hints(SCHEMAS[verb], include_extras=True).get(group)
    return default_groups(verb)[group] is None or holds_any_number(hint)


def ways_to_write(verb: str, folders: Folders, word: str, value: str, known: Collection[str]) -> list[str]:
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


def _as_choice(folders: Folders, group: str, name: str, value: str) -> str:
    needed = [key for key, given in paths(merged(layers(folders, group, name))) if given == "???"]
    return " ".join([f"{group}={name}", *(f"{key}={shown(value)}" for key in needed)])


def file_that_sets(verb: str, folders: Folders, chosen: Mapping[str, Choice], key: str) -> Path | None:
    """The file that sets a dotted key, the one with the last word where several do."""
    found = layers_of(verb, folders, chosen)
    for group, _, place in (choice.partition("@") for choice in chosen if "@" in choice):
        for name in names_of(chosen[f"{group}@{place}"]):
            found += layers(folders, group, name, place)
    return next((layer.file for layer in reversed(found) if layer.has(key)), None)
