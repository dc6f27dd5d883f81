"""What is asked of the machine, and what is set on it."""

import platform
import subprocess
import sys

import pytest

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
