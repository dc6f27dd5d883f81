"""A default stands in conf/, in a schema and in a signature, for who types, who composes and who calls: all say the same."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from llm.cli.compose import compose
from llm.config import schema
from llm.config.static import COMPUTED, REQUIRED, signature
from llm.model import config as of_models

CONF = Path(__file__).resolve().parents[2] / "conf"
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))
# What conf/ says for the embedded corpus alone: the beginnings that suit its text.
OF_THE_CORPUS = {"samples.prompts"}


def of_schema(kind: type, prefix: str = "") -> dict[str, Any]:
    """The defaults of a schema's keys by their dotted names; nodes without keys of their own are left out."""
    found = {}
    for field in dataclasses.fields(kind):
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default
        if dataclasses.is_dataclass(default):
            found |= of_schema(type(default), f"{prefix}{field.name}.")
        elif not isinstance(default, dict) and default is not dataclasses.MISSING:
            found[prefix + field.name] = default
    return found


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def leaves(node: Any) -> Iterator[dict[str, Any]]:
    """The nodes that name a class, however deep they stand."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from leaves(value)


def differing(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What both say and not alike."""
    both = {name: (plain(given[name]), plain(defaults[name])) for name in given.keys() & defaults.keys()}
    return {name: (one, two) for name, (one, two) in both.items() if one != two}


def plain(value: Any) -> Any:
    """As a config has it: tuples are lists, and a dictionary that holds nothing may be none."""
    return list(value) if isinstance(value, tuple) else None if value == {} else value


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_defaults_of_their_schema(command: str) -> None:
    given = flat(yaml.safe_load((CONF / f"{command}.yaml").read_text(encoding="utf-8")))
    needed = {name for name, value in given.items() if value == "???"}
    defaults = of_schema(getattr(schema, f"{command.capitalize()}Config"))
    assert differing(given, defaults).keys() - needed - OF_THE_CORPUS == set()


def test_the_trainer_has_the_defaults_of_its_schema() -> None:
    given = yaml.safe_load((CONF / "trainer/default.yaml").read_text(encoding="utf-8"))
    assert differing(given, of_schema(schema.TrainerConfig)) == {}


def test_the_first_choices_are_what_their_targets_do_unasked() -> None:
    nodes = list(leaves(compose("train", []).config))
    assert len(nodes) > 5
    for node in nodes:
        found = signature(node["_target_"])
        assert found is not None
        told = {name: field.default for name, field in found.fields.items()}
        told = {name: default for name, default in told.items() if default not in (REQUIRED, COMPUTED)}
        assert differing(node, told) == {}, node["_target_"]


@pytest.mark.parametrize("file", sorted((CONF / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_sources_leave_the_loaders_keys_to_the_loader(file: Path) -> None:
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = signature(given.get("_target_", "llm.data.sources.HuggingFace"))
    assert found is not None
    assert found.fields.keys() & schema.LOADER_KEYS == set()
    assert schema.BATCH_KEYS < schema.LOADER_KEYS
    # What is said again only says what a sequence is there.
    assert given.keys() & schema.BATCH_KEYS <= {"batch_size"}
    assert differing(given, of_schema(schema.BatchConfig)) == {}


def test_a_difference_is_seen() -> None:
    assert differing({"a": 0, "b": [1]}, {"a": None, "b": (1,)}) == {"a": (0, None)}


def test_a_task_can_name_every_architecture_of_models_and_no_other() -> None:
    assert get_args(schema.Architecture) == get_args(of_models.Architecture)
