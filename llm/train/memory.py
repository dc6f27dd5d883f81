"""How much memory training steps really take, in this process."""

import ctypes
import gc
import mmap
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from llm.malloc import give_back_freed_memory

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PAGE = mmap.PAGESIZE
# The second step is the first that has all of the optimizer's state.
MEASURED_STEPS = 3


class MemoryUse(L.Callback):
    """Measures the most memory of the first steps; `peak_bytes` is None where that can't be.

    On an accelerator it is what its allocator gave out. On a CPU, under Linux, it is the most that was resident, less
    what was so before training and is no tensor; what its allocator keeps of freed memory counts.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._before = 0
        self._first = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note what is there before the first step."""
        self._first = trainer.global_step
        if pl_module.device.type != "cpu":
            torch.accelerator.reset_peak_memory_stats()
        elif CLEAR.exists():
            held = _held()
            # What planning, the first weights and looking for tensors left free would be there before, and taken later.
            give_back_freed_memory()
            CLEAR.write_text("5")  # the high-water mark begins anew
            self._before = _resident("VmRSS") - held

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Note the most, until the steps have been seen that tell."""
        if trainer.global_step > self._first + MEASURED_STEPS:
            return
        if pl_module.device.type != "cpu":
            self.peak_bytes = torch.accelerator.max_memory_allocated()
        elif CLEAR.exists():
            self.peak_bytes = _resident("VmHWM") - self._before


def _held() -> int:
    """The resident bytes of all tensors on the CPU: weights, and what DeepSpeed made of them."""
    tensors = [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter)]
    # A kernel library's own layout tells of no storage.
    plain = [tensor for tensor in tensors if tensor.device.type == "cpu" and not tensor.is_mkldnn]
    storages = [tensor.untyped_storage() for tensor in plain if torch._C._has_storage(tensor)]
    return sum(map(_touched, {s.data_ptr(): s.nbytes() for s in storages}.items()))


def _touched(place: tuple[int, int]) -> int:
    """How much of memory at an address, of a size, is resident: what was never written to isn't."""
    address, size = place
    if size < PAGE:
        return size
    first = address // PAGE * PAGE
    n_pages = -(-(address + size - first) // PAGE)
    pages = np.zeros(n_pages, np.uint8)
    of = ctypes.c_void_p(first), ctypes.c_size_t(n_pages * PAGE), ctypes.c_void_p(pages.ctypes.data)
    if ctypes.CDLL(None).mincore(*of):
        return size
    return min(size, int((pages & 1).sum()) * PAGE)


def _resident(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
