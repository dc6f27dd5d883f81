"""What help, completion and hints read of conf/ is what Hydra composes of it, for every choice of every group."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from llm.cli import catalog
from llm.cli.compose import compose
from llm.cli.help import page
from llm.cli.layers import merged, paths
from llm.cli.overrides import split_words
from llm.cli.sources import config_loader
from llm.config import SCHEMAS, known_keys
from llm.config.check import quoted
from llm.config.words import REFUSED
from llm.errors import ConfigError

OVERLAYS = ("experiment", "debug")
VERBS = ("train", "prepare", "plan", "evaluate")
FOLDERS = catalog.config_folders(None)


def words_of(verb: str) -> Iterator[dict[str, str]]:
    """Choices that hold every one of a verb's, a choice of each group at a time; an overlay alone, as it overrides.

    What `prepare` and `plan` take over from `train` is left to that.
    """
    taken_over = catalog.default_groups("train") if verb in ("prepare", "plan") else {}
    groups = {g: n for g, n in catalog.choices_of_verb(verb, FOLDERS).items() if g not in taken_over}
    plain = {group: names for group, names in groups.items() if group not in OVERLAYS}
    for index in range(max(map(len, plain.values()))):
        yield {group: names[index % len(names)] for group, names in plain.items()}
    yield from ({group: name} for group in OVERLAYS for name in groups.get(group, ()))


CHOICES = [(verb, words) for verb in VERBS for words in words_of(verb)]
EVERY_CHOICE = pytest.mark.parametrize(
    ("verb", "chosen"), CHOICES, ids=[f"{v}-{'-'.join(w.values())}" for v, w in CHOICES]
)


@cache
def composed_by_hydra(verb: str, folders: tuple[Path, ...], *overrides: str) -> Any:
    raw = config_loader(folders).load_configuration(verb, list(overrides), RunMode.RUN, from_shell=False)
    plain = OmegaConf.to_container(raw, resolve=False)
    assert isinstance(plain, dict)
    return {key: value for key, value in plain.items() if key != "hydra"}


def numbers(node: Any) -> Any:
    """A config with `1e-3` as the number that Hydra takes it for; plain YAML has it as text."""
    if isinstance(node, dict):
        return {key: numbers(value) for key, value in node.items()}
    if isinstance(node, list):
        return [numbers(item) for item in node]
    try:
        return float(node) if isinstance(node, str) and node[:1].isdigit() else node
    except ValueError:
        return node


@EVERY_CHOICE
def test_choices_are_what_hydra_composes(verb: str, chosen: Mapping[str, str]) -> None:
    ours = merged(catalog.layers_of(verb, FOLDERS, catalog.choices(verb, FOLDERS, chosen)))
    theirs = composed_by_hydra(verb, FOLDERS, *(f"{group}={name}" for group, name in chosen.items()))
    assert numbers(ours) == numbers(theirs)


def rows_of(text: str) -> Mapping[str, str]:
    """What a help page shows of each dotted key, behind the key itself."""
    rows: dict[str, str] = {}
    node = ""
    for line in text.partition("\nKeys\n")[2].splitlines():
        if title := re.match(r"(\w+\.)<key>", line):
            node = title[1]
        elif row := re.match(r"  ([\w.]+)( .*)", line):
            rows.setdefault(node + row[1], row[2])
    return rows


@EVERY_CHOICE
def test_help_shows_the_values_that_compose(verb: str, chosen: Mapping[str, str]) -> None:
    words = [f"{group}={name}" for group, name in chosen.items()]
    rows, theirs = rows_of(page(verb, split_words(words))), composed_by_hydra(verb, FOLDERS, *words)
    known, groups = known_keys(SCHEMAS[verb], theirs), catalog.default_groups(verb)
    leaves = {key: value for key, value in paths(theirs) if key in known and not isinstance(value, dict)}
    for key, value in leaves.items():
        if key in REFUSED or key.endswith("._target_") or key in groups:
            assert key not in rows
            continue
        plain = value is None or isinstance(value, int | str)
        wanted = "needed" if value == "???" else quoted(value, 40) if plain else ""
        assert f"  {wanted}" in rows[key], f"{key}={value}"


def test_keys_of_choices_that_build_on_others() -> None:
    keys = catalog.keys_of_choice("train", FOLDERS, "task", "denoisers")
    assert {"task.collator.denoisers", "task.objective.label_smoothing", "samples.prompts"} <= set(keys)
    assert "trainer.strategy.stage" in catalog.keys_of_choice("train", FOLDERS, "strategy", "deepspeed_zero1")
    assert "data.name" in catalog.keys_of_choice("train", FOLDERS, "data", "sst2")


@pytest.mark.parametrize(
    ("word", "way"),
    [
        ("task.objective.beta=1", "task=dpo"),
        ("task.collator.too_long=drop", "task=chat or task=dpo"),
        ("trainer.strategy.tensor_parallel_size=4", "strategy=fsdp_tp"),
        ("trainer.strategy.offload=true", "strategy=deepspeed_zero1 or strategy=deepspeed_zero2"),
    ],
)
def test_a_key_of_another_choice_names_that_choice(word: str, way: str) -> None:
    with pytest.raises(ConfigError, match=f"this key needs another choice: {way}"):
        compose("train", [word])


@pytest.mark.parametrize(
    ("base", "top"),
    [
        ("norm: lyaer\n", "defaults: [own_base, _self_]\nd_model: 64\n"),
        ("norm: layer\n", "defaults: [own_base, _self_]\nnorm: lyaer\n"),
        ("# @package _global_\nmodel: {norm: lyaer}\n", "defaults: [own_base]\nd_model: 64\n"),
    ],
)
def test_an_error_is_located_in_the_file_that_sets_the_key(tmp_path: Path, base: str, top: str) -> None:
    (tmp_path / "model").mkdir()
    for name, text in (("own_base", base), ("own_top", top)):
        (tmp_path / "model" / f"{name}.yaml").write_text(text)
    guilty = "own_base" if "lyaer" in base else "own_top"
    with pytest.raises(ConfigError, match=rf"model.norm=lyaer.*(?s:.*)It is set in .*/{guilty}\.yaml"):
        compose("train", ["--config-dir", str(tmp_path), "model=own_top"])


def test_an_error_in_a_source_of_a_mixture_is_located(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own.yaml").write_text("defaults: [stdlib, _self_]\non_bad_file: stop\n")
    words = ["--config-dir", str(tmp_path), "data=mixture", "data.sources.code=own"]
    with pytest.raises(
        ConfigError, match=r"data.sources.code.on_bad_file=stop(?s:.*)It is set in .*/own\.yaml"
    ):
        compose("train", words)


@pytest.mark.parametrize(
    "top",
    [
        "defaults:\n  - /data@sources.code: stdlib\n  - mixture\n  - _self_\n",
        "defaults:\n  - mixture\n  - /data@_global_.data.sources.code: text\nbatch_size: 4\n",
        "defaults:\n  - /optimizer: muon\n  - _self_\n_target_: llm.data.sources.TextFiles\n",
        "# @package _global_\ndefaults: [text]\nseed: 3\ndata: {batch_size: 4}\n",
        "defaults:\n  - inner/deep\n  - stdlib@\n",
        "defaults:\n  - inner: deep\n  - /data/text@sources.b\n",
        "defaults:\n  - inner@_here_: [deep, flat]\n  - _self_\n",
    ],
)
def test_files_of_ones_own_are_read_as_hydra_reads_them(tmp_path: Path, top: str) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "deep.yaml").write_text(
        "_target_: llm.data.sources.TextFiles\npaths: [a]\n"
    )
    (tmp_path / "data" / "inner" / "flat.yaml").write_text("defaults: [deep]\npaths: [b]\n")
    (tmp_path / "data" / "own.yaml").write_text(top)
    folders = catalog.config_folders(str(tmp_path))
    ours = merged(catalog.layers_of("train", folders, catalog.choices("train", folders, {"data": "own"})))
    assert numbers(ours) == numbers(composed_by_hydra("train", folders, "data=own"))


def test_a_file_that_overrides_settings_of_hydra_still_composes(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\n"
        "defaults: [{override /hydra/job_logging: none}, {override /hydra/launcher: basic}]\n"
        "hydra: {verbose: true}\nseed: 3\n"
    )
    composed = compose("train", ["--config-dir", str(tmp_path), "experiment=own"])
    assert composed.config["seed"] == 3
    assert composed.choices.keys() == compose("train", []).choices.keys()


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for n_layers in (3, 12):
        (tmp_path / "model" / "own.yaml").write_text(f"defaults: [nano]\nn_layers: {n_layers}\n")
        config = compose("train", ["--config-dir", str(tmp_path), "model=own"]).config
        assert config["model"]["n_layers"] == n_layers
