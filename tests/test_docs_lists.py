"""The lists and tables in the docs hold what there is: all of it, and nothing else."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from llm.cli import catalog
from llm.cli.layers import layers, merged
from llm.config.schema import TrainConfig
from llm.data import steps
from llm.evaluation import EVALUATIONS

ROOT = Path(__file__).resolve().parents[1]
CHOICES = catalog.group_choices(catalog.config_folders(None))
WORD = re.compile(r"`([\w.]+)`")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """What stands under a heading, down to the next."""
    return re.split(r"^#+ ", text_of(page).partition(f"\n{heading}\n")[2], flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The first cells of the rows of a text's tables, but for their heads."""
    cells = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]
    return [cell for cell in cells if cell]


def words_in(text: str) -> set[str]:
    return set(WORD.findall(text))


def data_file(name: str) -> dict:
    return merged(layers(catalog.config_folders(None), "data", name))["data"]


def test_every_page_is_in_the_readmes_table() -> None:
    table = section("README.md", "## Where things are")
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} == set(
        re.findall(r"\]\((docs/\w+\.md)\)", table)
    )


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "conf/experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_recipe_is_as_short_as_said(recipe) -> None:
    (most,) = re.findall(r"overlay of at most (\d+) lines", text_of("CONTRIBUTING.md"))
    assert len(recipe.read_text(encoding="utf-8").splitlines()) <= int(most)


def test_the_keys_beside_the_groups_are_all_named() -> None:
    listed = (
        text_of("docs/config.md").partition("Beside the groups stand")[2].partition("\n`llm evaluate`")[0]
    )
    of_the_run, nodes = listed.split(" nodes, ")
    named = words_in(of_the_run) | {word.removesuffix(".") for word in words_in(nodes)}
    groups = set(catalog.default_groups("train"))
    assert named == {field.name for field in fields(TrainConfig)} - groups


def test_every_task_is_in_the_table_of_prompts() -> None:
    cells = first_cells(section("docs/generation.md", "## What each kind of model does with a prompt"))
    named = [word.removeprefix("task=") for cell in cells for word in re.findall(r"`(task=\w+|\w+)`", cell)]
    assert sorted(named) == CHOICES["task"]


def test_every_evaluation_is_in_the_table() -> None:
    table = text_of("docs/evaluation.md").partition("## Each example")[0]
    assert {cell.strip("`") for cell in first_cells(table) if cell != "`eval`"} == {*EVALUATIONS, "lm_eval"}


def test_every_source_is_in_the_table() -> None:
    cells = first_cells(section("docs/data.md", "## Sources"))
    named = [word.removeprefix("data=") for cell in cells for word in re.findall(r"`(data=\w+|\w+)`", cell)]
    assert sorted(named) == CHOICES["data"]


@pytest.mark.parametrize("key", ["on_bad_file", "validation_share"])
def test_which_sources_take_a_key(key: str) -> None:
    # Wherever a line ends.
    text = " ".join(section("docs/data.md", "## Sources").split())
    told = text.partition("All take `batch_size`")[2]
    listed = words_in(told.partition("; ")[2].partition(f"take `{key}`")[0])
    wanted = {"on_bad_file": listed, "validation_share": {*CHOICES["data"]} - {"mixture"}}[key]
    assert {name for name in CHOICES["data"] if key in data_file(name)} == wanted


def test_every_step_is_in_the_table_and_those_in_no_choice_are_named() -> None:
    text = section("docs/data.md", "## Steps: clean, filter, deduplicate")
    cells = [words_in(cell) for cell in first_cells(text) if "llm.data.steps." not in cell]
    every = {word for cell in cells for word in cell}
    assert every == set(steps.__all__) - {"Result", "Step", "TextStep"}
    chosen = {
        step["_target_"].rpartition(".")[2]
        for name in CHOICES["data"]
        for step in data_file(name).get("steps", {}).values()
    }
    lonely = words_in(
        re.findall(r"^(`Length`.*?) and the three that normalise are in no choice", text, re.MULTILINE)[0]
    )
    assert every - chosen == lonely | cells[-1]
    assert len(cells[-1]) == 3
