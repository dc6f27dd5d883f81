"""What is asked of the machine."""

import time
from pathlib import Path

import pytest
import torch

from llm.cli.compose import compose
from llm.errors import ConfigError
from llm.train.hardware import HALF_PRECISION_PEAKS, accelerator_name, measure_flops, peak_flops

HARDWARE = Path(__file__).resolve().parents[2] / "conf/hardware"
# What drivers call a device of each choice of `hardware=` that the table of peaks has too.
NAMES = {
    "a100_40": "NVIDIA A100-SXM4-40GB",
    "a100_80": "NVIDIA A100-SXM4-80GB",
    "b200": "NVIDIA B200",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
}


@pytest.mark.parametrize(
    ("found", "wanted", "name"),
    [
        (None, "auto", "cpu"),
        ("cuda", "auto", "cuda"),
        ("cuda", "gpu", "cuda"),
        ("mps", "gpu", "mps"),
        ("cuda", "cuda", "cuda"),
        ("cuda", "cpu", "cpu"),
    ],
)
def test_a_device_is_taken_by_its_name_or_by_being_there(monkeypatch, found, wanted, name):
    there = found and torch.device(found)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: there)
    assert accelerator_name(wanted) == name


@pytest.mark.parametrize(("found", "wanted"), [(None, "gpu"), (None, "cuda"), (None, "mps"), ("cuda", "mps")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, found, wanted):
    # Else it would train on the CPU, by as many processes as there were to be GPUs.
    there = found and torch.device(found)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: there)
    with pytest.raises(ConfigError, match=f"trainer.accelerator={wanted}: torch finds no such device"):
        accelerator_name(wanted)


def test_peak_comes_from_the_data_sheet_by_the_longest_name(monkeypatch):
    cuda = torch.device("cuda")
    for name, peak in {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA A10G": None,
        "NVIDIA L4": 121e12,
        "NVIDIA L40S": 362e12,
        "Tesla T4": 65e12,
        "NVIDIA GeForce RTX 9999": None,
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        monkeypatch.setattr("llm.train.hardware.measure_flops", lambda *_: None)
        assert peak_flops(cuda, torch.bfloat16) == peak, name


@pytest.mark.parametrize("choice", NAMES)
def test_a_device_has_the_peak_that_it_is_planned_with(choice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: NAMES[choice])
    planned = compose("plan", [f"hardware={choice}"]).config["hardware"]["bf16_tflops"] * 1e12
    assert peak_flops(torch.device("cuda"), torch.bfloat16) == planned


def test_each_choice_of_hardware_that_the_table_has_is_compared():
    choices = [file.stem.upper().split("_")[0] for file in HARDWARE.glob("*.yaml")]
    assert {name.upper().split("_")[0] for name in NAMES} == set(choices) & set(HALF_PRECISION_PEAKS)


def test_measured_peak_is_quick():
    began = time.perf_counter()
    assert measure_flops(torch.device("cpu"), torch.float32, seconds=0.1) > 1e8
    assert time.perf_counter() - began < 1
