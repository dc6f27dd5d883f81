"""What is asked of the machine, and what is set on it."""

import platform
import subprocess
import sys

import pytest
import torch

from llm.errors import ConfigError
from llm.train.hardware import accelerator_name

FAULTS = """
import resource, torch
from llm.train.hardware import keep_freed_memory
{keep}
for _ in range(30):  # the heap grows for up to nine of them before the parts that are freed fit the next
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it sets is glibc's")
def test_memory_that_is_freed_is_taken_again_without_page_faults():
    faults = {
        keep: int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keep=keep)], text=True))
        for keep in ("", "keep_freed_memory(64 << 20)", "keep_freed_memory(32 << 20)")
    }
    # Ten tensors of 64 MiB are 160 thousand pages of 4 KB, or 320 of 2 MB.
    assert faults[""] >= 320
    assert faults["keep_freed_memory(64 << 20)"] < 50
    assert faults["keep_freed_memory(32 << 20)"] >= 320  # nothing as large is expected, so nothing is set


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
