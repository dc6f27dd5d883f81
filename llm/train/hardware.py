"""What the machine can do, asked once and then written into the run."""

from pathlib import Path

import torch

BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def accelerator_name(accelerator: str) -> str:
    """`cpu`, `cuda`, ...: what Lightning's `accelerator` argument comes to on this machine."""
    if accelerator not in ("auto", "gpu"):
        return accelerator
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type


def device_count(accelerator: str) -> int:
    """How many devices of that kind there are; a CPU counts as one."""
    return 1 if accelerator_name(accelerator) == "cpu" else torch.accelerator.device_count()


def place(net: torch.nn.Module, accelerator: str = "auto") -> None:
    """Move a model to the first device of that kind."""
    net.to(torch.device(accelerator_name(accelerator)))


def has_bf16(accelerator: str) -> bool:
    """Whether bfloat16 matrix products run in hardware."""
    name = accelerator_name(accelerator)
    if name == "cpu":
        return bool(BF16_CPU_FLAGS & _cpu_flags())
    return name == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
