"""Help is complete, aligned, at most 100 columns, and true."""

import re

import pytest

from llm.cli import catalog
from llm.cli.compose import compose
from llm.cli.help import WIDTH, page, short_type
from llm.cli.main import VERBS, main
from llm.cli.overrides import split_words
from llm.config import SCHEMAS, known_keys
from llm.config.check import quoted, shown


def help_of(*words: str) -> str:
    return page(words[0], split_words(words[1:]))


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_aligned_and_narrow(verb: str) -> None:
    lines = help_of(verb).splitlines()
    assert max(len(line) for line in lines) <= WIDTH
    assert all(line == line.rstrip() for line in lines)
    assert "needed" in help_of(verb) or verb in ("train", "prepare", "plan", "runs", "doctor")


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_group_choice_and_key(verb: str) -> None:
    text = help_of(verb)
    for group, names in catalog.choices_of_verb(verb, catalog.config_folders(None)).items():
        assert re.search(rf"^  {group} ", text, re.MULTILINE)
        for name in names:
            assert re.search(rf"\b{re.escape(name)}\b", text)
    for key in set(known_keys(SCHEMAS[verb], {})) - {"task.collator", "task.objective", "trainer.strategy"}:
        leaf = key.rpartition(".")[2]
        assert leaf in text, key


@pytest.mark.parametrize("verb", VERBS)
def test_help_gives_three_examples_that_compose(verb: str) -> None:
    import shlex

    lines = [line.strip() for line in help_of(verb).splitlines() if line.startswith(f"  llm {verb} ")]
    assert len(lines) == 3
    for line in lines:
        compose(verb, shlex.split(line)[2:])


def test_help_follows_the_choices() -> None:
    assert re.search(r"^  d_model +int +768", help_of("train", "model=gpt_small"), re.MULTILINE)
    assert "data.<key> of data=text" in help_of("train", "data=text")
    assert re.search(r"^  paths .*needed", help_of("train", "data=text"), re.MULTILINE)
    assert "adam_lr" in help_of("train", "optimizer=muon")
    assert "adam_lr" not in help_of("train")


def test_defaults_are_those_that_compose() -> None:
    text, config = help_of("train"), compose("train", []).config
    for key in ("seed", "runs_dir", "resume"):
        assert re.search(rf"^  {key} +\w+ +{config[key]}\b", text, re.MULTILINE)
    steps = config["trainer"]["max_steps"]
    assert re.search(rf"^  max_steps +int +{steps}\b", text, re.MULTILINE)


def test_what_cant_be_set_by_hand_is_not_shown() -> None:
    assert not re.search(r"^  strategy +any", help_of("train"), re.MULTILINE)
    assert (
        "_target_" not in help_of("train").partition("\nKeys")[2].partition("packages")[2].split("\n", 1)[1]
    )


@pytest.mark.parametrize("words", [[], ["help"], ["-h"], ["--help"]])
def test_the_overview_lists_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  llm {verb} +\w", out, re.MULTILINE) for verb in VERBS)


def test_help_for_a_command_in_both_orders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "prepare"]) == 0
    first = capsys.readouterr().out
    assert main(["prepare", "data=stdlib", "-h"]) == 0
    assert capsys.readouterr().out == first


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"llm \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_info_names_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--info", "model=gpt_nano"]) == 0
    out = capsys.readouterr().out
    assert str(catalog.conf_folder() / "model" / "gpt_nano.yaml") in out


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (str | None, "text|null"),
        (list[str], "[text]"),
        (tuple[float, float], "[float, float]"),
        (str | list[str], "text|[text]"),
    ],
)
def test_types_in_few_letters(annotation: object, text: str) -> None:
    assert short_type(annotation) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("a", "a"),
        ("", '""'),
        (" a", '" a"'),
        ([1, "b, c"], '[1, "b, c"]'),
        (1e-3, "0.001"),
    ],
)
def test_values_as_one_types_them(value: object, text: str) -> None:
    assert quoted(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" a, b", " a, b"),
        ("a\nb", "a\\nb"),
        ([" a", "b", True], '[" a", b, true]'),
        ({"a": None}, '{"a": null}'),
        ("a" * 61, "a" * 57 + "..."),
    ],
)
def test_values_of_errors_are_raw_and_short(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("choice", ["adamw", "muon"])
def test_every_key_of_an_optimizer_has_words(choice: str) -> None:
    file = catalog.conf_folder() / "optimizer" / f"{choice}.yaml"
    keys = [line for line in file.read_text(encoding="utf-8").splitlines() if re.match(r"(?!_)\w+:", line)]
    assert len(keys) > 4
    assert [line for line in keys if "# " not in line] == []


def test_task_files_have_one_form() -> None:
    """Else a key that is copied from one to another lands elsewhere."""
    for file in (catalog.conf_folder() / "task").glob("*.yaml"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "# @package _global_", file
        assert not any(line.startswith(("collator:", "architectures:")) for line in lines), file
