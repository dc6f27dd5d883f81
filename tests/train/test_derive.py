"""What follows from config and machine where the config leaves it open."""

import copy
import dataclasses

import pytest

from llm.errors import ConfigError
from llm.train import derive as module
from llm.train.derive import Machine, derive
from llm.train.parallelism import STRATEGIES

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


TWO_GPUS = Machine("cuda", devices=2, is_limited=True, has_bf16=True, peak_flops=lambda _: 1e12)


def derived(choice="single", known=None, compile="auto", machine=None, sharing=1, **trainer):
    config = copy.deepcopy(CONFIG)
    config["compile"] = compile
    config["trainer"].update(trainer)
    return derive(
        config,
        dataclasses.replace(STRATEGIES[choice], tensor_parallel_size=sharing),
        context_length=64,
        samples_per_epoch=1000,
        known=known or {},
        machine=machine,
    )


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
        derive(config, STRATEGIES["deepspeed_zero3"], context_length=64, samples_per_epoch=1000, known={})


def test_a_resumed_run_compiles_as_it_began(compiler):
    begun = derived(max_steps=100).record()
    assert not begun["compile"]
    assert not derived(known=begun).compile


def test_processes_that_share_each_product_read_the_same_data():
    found = derived("fsdp_tp", devices=4, sharing=2)
    # Two groups share the 8 sequences.
    assert (found.world_size, found.micro_batch_size * found.accumulation) == (4, 4)
    with pytest.raises(ConfigError, match="tensor_parallel_size=2 does not divide the 3 processes"):
        derived("fsdp_tp", devices=3, sharing=2)


@pytest.mark.parametrize("choice", ["ddp", "fsdp", "deepspeed_zero2"])
def test_what_is_there_is_used_and_no_more(choice):
    assert derived(choice, machine=TWO_GPUS, devices="auto").world_size == 2
    assert derived("single", machine=TWO_GPUS, devices="auto").world_size == 1
    for devices in (3, [0, 1, 2]):
        with pytest.raises(ConfigError, match="this machine has 2"):
            derived(choice, machine=TWO_GPUS, devices=devices)


def test_a_launcher_has_decided_how_many_devices_there_are(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert derived("fsdp", devices="auto", num_nodes=2).world_size == 4
    assert derived("single", devices="auto").world_size == 1
    with pytest.raises(ConfigError, match="this machine has 1"):
        derived("fsdp", devices="auto", machine=dataclasses.replace(TWO_GPUS, devices=1))
