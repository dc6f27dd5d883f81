"""What follows from config and machine where the config leaves it open."""

import copy

import pytest

from llm.errors import ConfigError
from llm.train import derive as module
from llm.train.derive import derive

CONFIG = {
    "activation_checkpointing": None,
    "compile": "auto",
    "data": {"batch_size": 8, "micro_batch_size": None},
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "32-true",
        "max_steps": 500,
        "max_epochs": None,
        "max_time": None,
    },
}


def derived(choice="single", known=None, compile="auto", **trainer):
    config = copy.deepcopy(CONFIG)
    config["compile"] = compile
    config["trainer"].update(trainer)
    return derive(config, choice, context_length=64, samples_per_epoch=1000, known=known or {})


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setattr(module, "compiles_for_cpu", lambda: True)


def test_a_cpu_compiles_for_a_long_run_of_one_process(compiler):
    assert derived().compile
    assert not derived(max_steps=499).compile
    assert not derived("ddp", devices=2).compile
    assert derived(compile=True, max_steps=1).compile
    assert not derived(compile=False).compile


def test_a_cpu_without_a_compiler_does_not_compile(monkeypatch):
    monkeypatch.setattr(module, "compiles_for_cpu", lambda: False)
    assert not derived().compile


def test_weights_that_hooks_gather_are_not_compiled():
    assert not derived("deepspeed_zero3", devices=2).compile
    with pytest.raises(ConfigError, match="strategy=fsdp"):
        derived("deepspeed_zero3", devices=2, compile=True)


def test_zero_3_recomputes_whole_blocks_alone():
    config = {**copy.deepcopy(CONFIG), "activation_checkpointing": "selective"}
    with pytest.raises(ConfigError, match="strategy=fsdp"):
        derive(config, "deepspeed_zero3", context_length=64, samples_per_epoch=1000, known={})


def test_a_resumed_run_compiles_as_it_began(compiler):
    begun = derived(max_steps=100).record()
    assert not begun["compile"]
    assert not derived(known=begun).compile


def test_processes_that_share_each_product_read_the_same_data():
    split = {"_target_": "llm.train.strategies.TensorParallelStrategy", "tensor_parallel_size": 2}
    found = derived("fsdp_tp", devices=4, strategy=split)
    # Two groups share the 8 sequences.
    assert (found.world_size, found.micro_batch_size * found.accumulation) == (4, 4)
    with pytest.raises(ConfigError, match="tensor_parallel_size=2 does not divide the 3 processes"):
        derived("fsdp_tp", devices=3, strategy=split)
