"""What a plan is made for: devices, their links, and what an hour of one costs."""

import os
from dataclasses import dataclass
from typing import Literal

import torch

from llm.bounds import Count, Positive


@dataclass(frozen=True)
class Hardware:
    """One kind of device, and how many of them are joined; GB are 10^9 bytes, and links count one way."""

    accelerator: Literal["cpu", "cuda", "auto"] = "auto"  # auto: what is in this machine
    memory_gb: Positive | None = None  # of a device; null: this machine's
    bf16_tflops: Positive | None = None  # dense peak of matrix products in bfloat16; null: this machine's
    fp32_tflops: Positive | None = None  # the same in float32; null: this machine's
    memory_gb_per_s: Positive | None = None  # GB/s of a device's memory; null: not counted
    node_gb_per_s: Positive | None = None  # GB/s that a device sends within its node; null: not counted
    host_gb_per_s: Positive | None = None  # GB/s between a device and its host; null: not counted
    network_gb_per_s: Positive | None = None  # GB/s that a device sends to other nodes; null: not counted
    devices_per_node: Count = 8  # devices that the faster links join
    price_per_hour: Positive | None = None  # of one device, in whatever currency; null: no cost is given

    @property
    def is_here(self) -> bool:
        """Whether what isn't said is asked of this machine."""
        return self.memory_gb is None

    def memory_bytes(self, accelerator: str) -> int:
        """What a device holds."""
        if self.memory_gb is not None:
            return round(self.memory_gb * 1e9)
        if accelerator == "cuda":
            return int(torch.cuda.get_device_properties(0).total_memory)
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """FLOP/s of a device's matrix products; None where this machine is to be asked."""
        tflops = self.bf16_tflops if dtype in (torch.bfloat16, torch.float16) else self.fp32_tflops
        return None if tflops is None else tflops * 1e12
