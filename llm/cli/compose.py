"""From a command line to a composed, checked, plain config; every mistake is a ConfigError, and nothing is written."""

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from llm.cli import catalog
from llm.cli.layers import Choice, Folders
from llm.cli.overrides import Words, read_list, split_words
from llm.cli.sources import config_loader
from llm.cli.values import Texts, read_value
from llm.config import SCHEMAS, Composed, Problem, check, check_targets, filled, find_key, known_keys
from llm.config.check import unknown_key
from llm.config.schema import BATCH_KEYS
from llm.config.static import Field
from llm.config.words import REFUSED, nearest
from llm.errors import ConfigError


def compose(verb: str, argv: Sequence[str]) -> Composed:
    """Compose and check the config of a verb.

    Raises:
        ConfigError: anything in the command line or the config files is wrong.
    """
    words = split_words(argv)
    command = _Command(verb, words, catalog.config_folders(words.flags.get("config_dir")))
    config, choices = command.compose()
    check_targets(config)
    problems = check(config, SCHEMAS[verb])
    if problems:
        raise ConfigError("\n".join(command.located(problem, choices) for problem in problems))
    config = filled(config, SCHEMAS[verb])
    _check_together(verb, config, words)
    if "name" in config:
        config["name"] = _checked_name(config["name"] or default_name(config, choices))
    return Composed(config, choices, frozenset(words.values))


def key_fields(verb: str, argv: Sequence[str]) -> Callable[[str], Field | None]:
    """What each key is, by its dotted name, under the groups that a command line chooses.

    None for a group, and for what is no key.

    Raises:
        ConfigError: there is no such choice.
    """
    words = split_words(argv)
    return _Command(verb, words, catalog.config_folders(words.flags.get("config_dir"))).fields()


def default_name(config: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """A run's name: model (or what it starts from), data and task, and what it is debugged by."""
    init_from = config["init_from"]
    model = Path(init_from).name if init_from else choices["model"]
    adapter = None if choices["adapter"] == "none" else choices["adapter"]
    parts = [model, choices["data"], choices["task"], adapter, choices.get("debug")]
    return "-".join(str(part).replace("/", "_") for part in parts if part)


def _checked_name(name: str) -> str:
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not parts:
        raise ConfigError(
            f"name={name}: this is a folder inside runs_dir; it can't begin with / or hold `..`."
        )
    if any(len(part.encode()) > 255 for part in parts):
        raise ConfigError(f"name={name[:40]}...: a folder's name has 255 bytes at most.")
    return name


def _check_together(verb: str, config: Mapping[str, Any], words: Words) -> None:
    """Raise ConfigError where keys that are right one by one don't make a command."""
    if verb == "evaluate" and config["run"] is None and config["model"] is None:
        raise ConfigError("run: this is needed; add run=<value>.")
    if not config.get("init_from"):
        return
    for key, value in words.values.items():
        group = key.partition(".")[0]
        if key == "model.context_length":
            raise ConfigError(
                f"{key}={value}: the model of init_from={config['init_from']} has its own; context_length={value} shortens it."
            )
        if group in ("model", "tokenizer"):
            raise ConfigError(
                f"{key}={value}: init_from={config['init_from']} brings its own {group}; leave {key}= out."
            )


@dataclass(frozen=True)
class _Command:
    """A command line on its way to a config."""

    verb: str
    words: Words
    folders: Folders

    def compose(self) -> tuple[dict[str, Any], dict[str, Choice]]:
        """The plain config, unchecked, and the choices."""
        groups, raw, choices = self._choose()
        texts = Texts()
        config = _unresolved(raw, texts)
        self._refuse_words([*known_keys(SCHEMAS[self.verb], config), *groups])
        values = {key: value for key, value in self.words.values.items() if key not in groups}
        # Classes first: which keys there are depends on them.
        for key in sorted(values, key=lambda key: not key.endswith("._target_")):
            self._set(raw, config, key, values[key], texts)
            # In place of a plain value, another leaves all keys as they are.
            if not _is_plain(config, key):
                config = _unresolved(raw, texts)
        return texts.restore(_plain(raw)), choices

    def fields(self) -> Callable[[str], Field | None]:
        """What the keys are under the chosen groups; None for a group, and for what is no key."""
        groups, raw, _ = self._choose()
        config = _unresolved(raw, Texts())
        return lambda key: None if key in groups else find_key(SCHEMAS[self.verb], config, key)

    def _choose(self) -> tuple[dict[str, list[str]], DictConfig, dict[str, Choice]]:
        """The groups that there are, and what the chosen ones load."""
        groups = catalog.choices_of_verb(self.verb, self.folders)
        sources = [choice for choice in groups.get("data", []) if choice != "mixture"]
        groups |= {key: sources for key in self.words.values if _is_source(key) and sources}
        chosen = {key: value for key, value in self.words.values.items() if key in groups}
        for group, choice in chosen.items():
            self._check_choice(group, choice, groups[group])
        return groups, *self._load(chosen)

    def located(self, problem: Problem, choices: Mapping[str, Choice]) -> str:
        """A problem, with the file that it is in where it isn't in the command line."""
        groups = catalog.default_groups(self.verb)
        values = (key for key in self.words.values if key not in groups and not _is_source(key))
        typed = any(problem.key == key or problem.key.startswith(f"{key}.") for key in values)
        file = None if typed else catalog.file_that_sets(self.verb, self.folders, choices, problem.key)
        return f"{problem}\n  It is set in {file}." if file else str(problem)

    def _check_choice(self, group: str, choice: str, choices: list[str]) -> None:
        if choice in ("", "null") and catalog.may_be_empty(self.verb, group):
            return
        for name in read_list(group, choice) if choice.startswith("[") else [choice]:
            if name not in choices:
                guess = nearest(name, choices)
                hint = f" Did you mean {group}={guess}?" if guess else ""
                raise ConfigError(
                    f"{group}={name}: there is no such {group}.{hint}\n  Choices: {', '.join(choices)}."
                )

    def _load(self, chosen: Mapping[str, str]) -> tuple[DictConfig, dict[str, Choice]]:
        overrides = [
            # A source of a mixture is a choice of `data` in another place.
            f"+data@{group}={choice}" if _is_source(group) else f"{group}={choice}"
            for group, choice in chosen.items()
            if choice not in ("", "null")
        ]
        emptied = [group for group, choice in chosen.items() if choice in ("", "null")]
        # Hydra takes no null for a group; a group without a default is empty as it is.
        overrides += [
            f"{group}=[]" for group in emptied if catalog.default_groups(self.verb)[group] is not None
        ]
        state = catalog.state(self.folders)
        raw, choices = _load_once(self.verb, self.folders, tuple(overrides), state)
        return copy.deepcopy(raw), dict(choices)

    def _set(self, raw: DictConfig, config: Any, key: str, value: str, texts: Texts) -> None:
        field = find_key(SCHEMAS[self.verb], config, key)
        if field is None or key in REFUSED:
            raise ConfigError(self._no_key(key, value, config))
        OmegaConf.update(raw, key, read_value(key, value, field.annotation, texts), force_add=True)

    def _no_key(self, key: str, value: str, config: Any) -> str:
        if key.partition(".")[0] == "hydra":
            return f"{key}={value}: Hydra's own settings have no effect here; set runs_dir= and name= for folders."
        if self.verb == "train" and key.partition(".")[0] == "sweep":
            return f"{key}={value}: this is for a sweep of several jobs; add -m."
        others = [] if key in REFUSED else catalog.choices_with_key(self.verb, self.folders, key)
        if others:
            return f"{key}={value}: this key needs another choice: {' or '.join(others)}."
        groups = catalog.choices_of_verb(self.verb, self.folders)
        known = known_keys(SCHEMAS[self.verb], config) | dict.fromkeys(groups, Field())
        ways = catalog.ways_to_write(self.verb, self.folders, key, value, known)
        if ways:
            return f"{key}={value}: there is no key {key}; write {' or '.join(ways)}."
        return f"{unknown_key(key, value, known)}\n  --help lists the keys."

    def _refuse_words(self, names: Sequence[str]) -> None:
        for strange in self.words.strange:
            guess = nearest(strange.key, names)
            example = f"{guess}={strange.value}" if guess else "key=value"
            raise ConfigError(f"{strange.typed}: keys are written without dashes; write {example}.")
        for word in self.words.bare:
            guess = nearest(word, names)
            example = f"{guess}=<value>" if guess else "key=value, for example seed=1"
            raise ConfigError(f"{word}: an equals sign is missing; write {example}.")


@lru_cache(64)
def _load_once(
    verb: str, folders: Folders, overrides: tuple[str, ...], _state: Hashable
) -> tuple[DictConfig, dict[str, Choice]]:
    """What Hydra makes of the choices, once for each state of the files: the jobs of a sweep often share theirs."""
    try:
        loader = config_loader(folders)
        raw = loader.load_configuration(verb, list(overrides), RunMode.RUN, from_shell=False)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"the config files don't fit together: {_short(error)}") from error
    choices = {str(group): choice for group, choice in raw.hydra.runtime.choices.items()}
    OmegaConf.set_struct(raw, False)
    with open_dict(raw):
        del raw["hydra"]
        for key in _of_training(raw, verb):
            del raw[key]
        for node in _sources(raw):
            for key in BATCH_KEYS & set(node):
                del node[key]
    return raw, {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}


def _of_training(raw: DictConfig, verb: str) -> list[str]:
    """What a task's file says of the run that trains it, such as its samples, which is nothing to `llm prepare`."""
    if "task" not in raw:
        return []
    own, training = ({field.name for field in fields(SCHEMAS[one])} for one in (verb, "train"))
    return [str(key) for key in raw if key in training - own]


def _is_source(key: str) -> bool:
    """Whether a key names a source of a mixture: data.sources.<name>."""
    return key.startswith("data.sources.") and key.count(".") == 2


def _sources(raw: DictConfig) -> Iterator[DictConfig]:
    """The sources of a mixture, as their files have them."""
    data = raw.get("data")
    sources = data.get("sources") if isinstance(data, DictConfig) else None
    for node in (sources or {}).values():
        if isinstance(node, DictConfig):
            yield node


def _unresolved(raw: DictConfig, texts: Texts) -> Any:
    return texts.restore(OmegaConf.to_container(raw, resolve=False))


def _is_plain(config: Any, key: str) -> bool:
    """Whether a key has a value that is no node and says nothing of which keys there are."""
    *nodes, name = key.split(".")
    for node in nodes:
        config = config.get(node) if isinstance(config, dict) else None
    plain = isinstance(config, dict) and name in config and not isinstance(config[name], dict | None)
    return plain and name != "_target_"


def _plain(raw: DictConfig) -> Any:
    try:
        missing = sorted(OmegaConf.missing_keys(raw))
        plain = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{error.full_key or 'the config'}: this can't be resolved: {_short(error)}"
        ) from error
    if missing:
        raise ConfigError("\n".join(f"{key}: this is needed; add {key}=<value>." for key in missing))
    return plain


def _short(error: Exception) -> str:
    """An error of Hydra or OmegaConf without the parts that only their developers need."""
    lines = [line.strip() for line in str(error).splitlines()]
    end = next(
        (i for i, line in enumerate(lines) if line.startswith(("Config search path", "full_key"))), None
    )
    return " ".join(line for line in lines[:end] if line)
