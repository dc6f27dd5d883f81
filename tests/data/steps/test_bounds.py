"""A number of a choice that can't be is refused by key and value, before any document is read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest

from llm.cli.compose import compose
from llm.config.check import members
from llm.config.static import signature
from llm.data import steps
from llm.data.steps import GopherQuality, Length
from llm.errors import ConfigError

NAMES = sorted(set(steps.__all__) - {"Result", "Step", "TextStep"})
CONF = Path(__file__).resolve().parents[3] / "conf"
# What choices of conf/ are made by; sources and collators check their numbers themselves.
MADE_BY = re.compile(r"_target_: (llm\.(?!data\.)[\w.]+)")
OURS = sorted({name for file in CONF.rglob("*.yaml") for name in MADE_BY.findall(file.read_text("utf-8"))})


def unbounded(annotation: Any) -> Iterator[type]:
    """The numbers in a type that may be anything."""
    for kind in members(annotation):
        if kind in (int, float):
            yield kind
        elif get_origin(kind) is not Annotated:
            for inner in get_args(kind):
                yield from unbounded(inner)


@pytest.mark.parametrize("target", [*(f"llm.data.steps.{name}" for name in NAMES), *OURS])
def test_every_number_of_a_choice_has_bounds(target: str) -> None:
    found = signature(target)
    assert found is not None
    assert [key for key, field in found.fields.items() if list(unbounded(field.annotation))] == []


def test_a_number_without_bounds_is_seen() -> None:
    assert list(unbounded(int | list[float] | None)) == [int, float]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("c4.min_sentences=-5", "int from 0"),
        ("c4.max_word_length=0", "int above 0"),
        ("gopher_quality.max_bullet_lines=1.5", "float from 0 up to 1"),
        ("gopher_quality.min_stop_words=9", "int from 0 up to 8"),
        ("gopher_repetition.top=[0.2, 2.0]", "a list of float from 0 up to 1"),
        ("fineweb.short_line=-1", "int from 0"),
        ("language.min_probability=-0.1", "float from 0 up to 1"),
        ("near_duplicates.threshold=0.0", "float above 0 up to 1"),
        ("near_duplicates.bands=0", "int above 0"),
    ],
)
def test_a_number_out_of_bounds_is_named_with_its_key(word: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose("prepare", ["data=common_crawl", "data.paths=x", f"data.steps.{word}"])
    assert str(raised.value).startswith(f"data.steps.{word}: expected {expected}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["adapter=lora", "init_from=x", "adapter.rank=0"], "int above 0"),
        (["adapter=lora", "init_from=x", "adapter.dropout=1.0"], "float from 0 below 1"),
        (["schedule.final_lr_ratio=1.5"], "float from 0 up to 1"),
        (["schedule.warmup_steps=-1"], "int from 0 or null"),
        (["schedule=wsd", "schedule.decay_ratio=-0.1"], "float from 0 up to 1"),
        (["task=dpo", "init_from=x", "task.objective.beta=0.0"], "float above 0"),
        (["tokenizer.vocab_size=0"], "int above 0"),
    ],
)
def test_a_number_of_a_training_choice_is_refused_before_anything_is_read(words, expected) -> None:
    with pytest.raises(ConfigError) as raised:
        compose("train", words)
    assert str(raised.value).startswith(f"{words[-1]}: expected {expected}")


def test_what_a_step_may_be_set_to_composes() -> None:
    words = ["c4.min_sentences=0", "gopher_quality.max_symbols=2.5", "near_duplicates.threshold=1"]
    chosen = [f"data.steps.{word}" for word in words]
    found = compose("prepare", ["data=common_crawl", "data.paths=x", *chosen]).config["data"]["steps"]
    assert (found["c4"]["min_sentences"], found["gopher_quality"]["max_symbols"]) == (0, 2.5)


@pytest.mark.parametrize(
    ("make", "least", "most"),
    [
        (lambda: GopherQuality(min_words=9, max_words=8), "min_words=9", "max_words=8"),
        (lambda: GopherQuality(min_mean_length=11), "min_mean_length=11", "max_mean_length=10.0"),
        (lambda: Length(min_characters=3, max_characters=2), "min_characters=3", "max_characters=2"),
    ],
)
def test_limits_that_leave_nothing_are_refused(make, least, most) -> None:
    with pytest.raises(ConfigError, match=rf"data\.steps\..*{least}: this is above {most}"):
        make()
    assert Length(min_words=3, max_words=3, min_characters=1).max_characters is None
