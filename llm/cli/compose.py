"""From a command line to a composed, checked, plain config; every mistake is a ConfigError, and nothing is written."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from llm.cli.overrides import Words, read_list, split_words
from llm.cli.sources import conf_folder, config_loader, default_groups, group_choices
from llm.config import SCHEMAS, check_targets, checked, known_keys
from llm.config.check import members, unknown_key
from llm.config.static import Field
from llm.config.words import REFUSED, nearest
from llm.errors import ConfigError

_VERBATIM = "\0verbatim:{}\0"  # stands for a text until interpolations are resolved; nobody can type a NUL


@dataclass(frozen=True)
class Composed:
    """What a command line says: `config` in plain containers, every key present; `choices` group by group."""

    config: dict[str, Any]
    choices: dict[str, str | list[str] | None]
    words: Words


def compose(verb: str, argv: Sequence[str]) -> Composed:
    """Compose and check the config of a verb.

    Raises:
        ConfigError: anything in the command line or the config files is wrong.
    """
    words = split_words(argv)
    folders = config_folders(words)
    groups, values = _split_groups(verb, words, folders)
    raw, choices = _load(verb, groups, folders)
    texts = _set_values(raw, verb, words, values, list(groups_of(verb)))
    config = _plain(raw, texts)
    check_targets(config)
    config = checked(config, SCHEMAS[verb])
    _refuse_conflicts(config, words)
    if "name" in config and config["name"] is None:
        config["name"] = default_name(config, choices)
    return Composed(config, choices, words)


def config_folders(words: Words) -> list[Path]:
    """Our conf/ and, behind it, the folder that the user gave."""
    given = words.flags.get("config_dir")
    if given is not None and not Path(given).is_dir():
        raise ConfigError(f"--config-dir {given}: there is no such folder.")
    return [conf_folder()] + ([Path(given).resolve()] if given is not None else [])


def groups_of(verb: str) -> dict[str, str | list[str] | None]:
    """The groups that a verb chooses from, each with its default."""
    return default_groups(verb)


def default_name(config: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """A run's name: model (or what it starts from), data and task, and what it is debugged by."""
    start = config["init_from"]
    model = Path(start).name if start else choices["model"]
    parts = [model, choices["data"], choices["task"], choices.get("debug")]
    return "-".join(str(part).replace("/", "_") for part in parts if part)


def _split_groups(verb: str, words: Words, folders: Sequence[Path]) -> tuple[dict[str, str], dict[str, str]]:
    choices = {group: names for group, names in group_choices(folders).items() if group in groups_of(verb)}
    groups = {key: value for key, value in words.values.items() if key in choices}
    for group, choice in groups.items():
        _check_choice(verb, group, choice, choices[group])
    return groups, {key: value for key, value in words.values.items() if key not in choices}


def _check_choice(verb: str, group: str, choice: str, choices: list[str]) -> None:
    optional = groups_of(verb)[group] is None
    if optional and choice in ("", "null"):
        return
    several = choice.startswith("[")
    for name in read_list(group, choice) if several else [choice]:
        if name not in choices:
            raise ConfigError(_no_choice(group, name, choices))


def _no_choice(group: str, name: str, choices: list[str]) -> str:
    guess = nearest(name, choices)
    hint = f" Did you mean {group}={guess}?" if guess else ""
    listed = "a list is written [a,b]; " if "," in name else ""
    return (
        f"{group}={name}: there is no such {group}.{hint}\n  {listed}{group} is one of {', '.join(choices)}."
    )


def _load(
    verb: str, groups: Mapping[str, str], folders: Sequence[Path]
) -> tuple[DictConfig, dict[str, str | list[str] | None]]:
    overrides = [f"{group}={choice or 'null'}" for group, choice in groups.items()]
    try:
        raw = config_loader(folders).load_configuration(verb, overrides, RunMode.RUN, from_shell=False)
        choices = OmegaConf.to_container(raw.hydra.runtime.choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"the config files don't fit together: {_first_lines(error)}") from error
    OmegaConf.set_struct(raw, False)
    with open_dict(raw):
        del raw["hydra"]
    assert isinstance(choices, dict)
    return raw, {
        str(group): choice for group, choice in choices.items() if not str(group).startswith("hydra/")
    }


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())


def _set_values(
    raw: DictConfig, verb: str, words: Words, values: Mapping[str, str], groups: Sequence[str]
) -> dict[str, str]:
    """Set each `key=value` in `raw`; texts go in as placeholders, and the answer says what each stands for."""
    plain = OmegaConf.to_container(raw, resolve=False)
    known = known_keys(SCHEMAS[verb], plain)
    _refuse_words(verb, words, [*known, *groups])
    texts: dict[str, str] = {}
    for key, value in values.items():
        if key not in known or key in REFUSED:
            raise ConfigError(_no_key(verb, key, value, known, groups))
        OmegaConf.update(raw, key, _read_value(key, value, known[key], texts), force_add=True)
    return texts


def _no_key(verb: str, key: str, value: str, known: Mapping[str, Field], groups: Sequence[str]) -> str:
    if key.partition(".")[0] == "hydra":
        return f"{key}={value}: Hydra's own settings have no effect here; folders are set by runs_dir= and name=."
    named = {**known, **dict.fromkeys(groups, Field())}
    return f"{unknown_key(key, value, named)}\n  `llm {verb} --help` lists every key."


def _refuse_words(verb: str, words: Words, names: Sequence[str]) -> None:
    for strange in words.strange:
        guess = nearest(strange.key, names) or strange.key
        example = f"{guess}={strange.value}" if guess in names else "key=value"
        raise ConfigError(f"{strange.typed}: keys are written without dashes; write {example}.")
    for word in words.bare:
        guess = nearest(word, names)
        example = f"{guess}=..." if guess else "key=value, for example seed=1"
        raise ConfigError(f"{word}: an equals sign is missing; write {example}.")


def _read_value(key: str, text: str, field: Field, texts: dict[str, str]) -> Any:
    """Texts as they were typed, lists of texts item by item, all else in Hydra's grammar."""
    kinds = members(field.annotation)
    lists = any(_is_list_of_text(kind) for kind in kinds)
    if not all(_is_text(kind) or _is_list_of_text(kind) for kind in kinds):
        return None if text == "" else _parse(key, text, texts)
    if lists and text.startswith("["):
        return [_placeholder(item, texts) for item in read_list(key, text)]
    if text == "" and type(None) in kinds:
        return None
    if any(_is_text(kind) for kind in kinds if kind is not type(None)):
        return _placeholder(text, texts)
    return [_placeholder(text, texts)] if text else []


def _is_text(kind: Any) -> bool:
    words = get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))
    return kind is str or kind is type(None) or words


def _is_list_of_text(kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    return isinstance(origin, type) and issubclass(origin, Sequence) and set(arguments) <= {str, ...}


def _placeholder(text: str, texts: dict[str, str]) -> str:
    name = _VERBATIM.format(len(texts))
    texts[name] = text
    return name


def _parse(key: str, text: str, texts: dict[str, str]) -> Any:
    """Numbers, true, null, lists and dictionaries; what isn't one stays a text, for the check to judge."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
    except OverrideParseException:
        return _placeholder(text, texts)
    if override.is_sweep_override():
        raise ConfigError(f"{key}={text}: several values need -m; a list is written [a,b].")
    return override.value()


def _plain(raw: DictConfig, texts: Mapping[str, str]) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(raw))
    if missing:
        raise ConfigError("\n".join(f"{key}: this is needed; add {key}=<value>." for key in missing))
    try:
        plain = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config can't be resolved: {_first_lines(error)}") from error
    return _verbatim(plain, texts)


def _verbatim(node: Any, texts: Mapping[str, str]) -> Any:
    """Put the texts back for which placeholders stood."""
    if isinstance(node, dict):
        return {key: _verbatim(value, texts) for key, value in node.items()}
    if isinstance(node, list):
        return [_verbatim(value, texts) for value in node]
    if not isinstance(node, str) or "\0" not in node:
        return node
    return functools.reduce(lambda text, name: text.replace(name, texts[name]), texts, node)


def _refuse_conflicts(config: Mapping[str, Any], words: Words) -> None:
    if config.get("init_from") and "model" in words.values:
        raise ConfigError(
            f"model={words.values['model']}: init_from={config['init_from']} brings its own model; leave model= out."
        )
