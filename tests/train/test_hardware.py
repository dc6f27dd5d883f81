"""What is asked of the machine."""

import pytest
import torch

from llm.errors import ConfigError
from llm.train.hardware import accelerator_name


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
