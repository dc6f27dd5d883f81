"""What is known of each choice of `strategy=`, and of one that is somebody's own."""

from dataclasses import replace
from pathlib import Path

import pytest

from llm.cli.compose import compose
from llm.train.parallelism import STRATEGIES, Parallelism, parallelism_of

CHOICES = Path(__file__).resolve().parents[2] / "conf/strategy"


def chosen(*words):
    """What the strategy of a command does."""
    return parallelism_of(compose("train", words).config["trainer"]["strategy"])


def test_each_choice_is_known():
    assert set(STRATEGIES) == {file.stem for file in CHOICES.glob("*.yaml")}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_choice_is_as_its_file_sets_it(name):
    found = chosen(f"strategy={name}")
    assert (found.tensor_parallel_size > 1) == found.shares_products
    assert replace(found, tensor_parallel_size=1) == STRATEGIES[name]


def test_what_is_set_of_a_choice_is_told():
    shared = chosen("strategy=fsdp_tp", "trainer.strategy.tensor_parallel_size=4")
    assert (shared.name, shared.tensor_parallel_size) == ("fsdp_tp", 4)
    assert chosen("strategy=deepspeed_zero1", "trainer.strategy.offload=true").offload
    assert chosen("strategy=deepspeed_zero1", "trainer.strategy.stage=3") == STRATEGIES["deepspeed_zero3"]


def test_a_file_of_ones_own_is_what_its_class_is(tmp_path):
    (tmp_path / "strategy").mkdir()
    file = tmp_path / "strategy/my_ddp.yaml"
    target = STRATEGIES["ddp"].target
    file.write_text(f"# @package trainer\nstrategy:\n  _target_: {target}\n  find_unused_parameters: true\n")
    assert chosen("strategy=my_ddp", f"--config-dir={tmp_path}") == STRATEGIES["ddp"]


def test_of_a_class_of_ones_own_the_settings_alone_are_known():
    assert parallelism_of({"_target_": "mine.Strategy"}) == Parallelism("mine.Strategy", "mine.Strategy")
    mine = parallelism_of({"_target_": "mine.Strategy", "tensor_parallel_size": 2})
    assert (mine.shares_products, mine.tensor_parallel_size) == (True, 2)
    assert not mine.gives_whole_matrices


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("has_whole_weights", {"single", "ddp", "deepspeed_zero1", "deepspeed_zero2"}),
        ("gathers_in_hooks", {"deepspeed_zero3"}),
        ("gives_whole_matrices", {"single", "ddp", "fsdp"}),
    ],
)
def test_what_is_asked_of_strategies(asked, names):
    assert {name for name, one in STRATEGIES.items() if getattr(one, asked)} == names
