"""What the machine can do, asked once and then written into the run."""

import os
import re
import shutil
import sys
import sysconfig
import time
from pathlib import Path

import torch

from llm.errors import ConfigError
from llm.model import ModelConfig

BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
# Dense tensor-core FLOP/s in half precision, by a part of the device's name, from NVIDIA's data sheets.
HALF_PRECISION_PEAKS = {
    "B200": 2250e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "L40S": 362e12,
    "A100": 312e12,
    "A10": 125e12,
    "L4": 121e12,
    "T4": 65e12,
}


def accelerator_name(accelerator: str) -> str:
    """`cpu`, `cuda`, ...: what Lightning's `accelerator` argument comes to on this machine.

    Raises:
        ConfigError: a GPU is asked for by name, and there is none.
    """
    if accelerator in ("cpu", "tpu"):
        return accelerator
    found = torch.accelerator.current_accelerator(check_available=True)
    name = "cpu" if found is None else found.type
    if accelerator in ("auto", name) or (accelerator == "gpu" and found is not None):
        return name
    raise ConfigError(
        f"trainer.accelerator={accelerator}: torch finds no such device on this machine, only {name}. Set "
        "trainer.accelerator=auto, which takes what is there, or install a build of torch for that device."
    )


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


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The FLOP/s of one device in matrix products: from its data sheet where it is known, otherwise measured."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for part, peak in HALF_PRECISION_PEAKS.items():
            if re.search(rf"\b{part}\b", name):
                return peak
    return measure_flops(device, dtype)


def measure_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """The best rate of a square matrix product within about `seconds`."""
    size = 512 if device.type == "cpu" else 8192
    a = torch.randn(size, size, generator=torch.Generator(device).manual_seed(0), device=device).to(dtype)
    product = torch.empty_like(a)  # a new one each time takes 10 MB from the heap before it is the old one
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(a, a, out=product)
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)


def cpp_compiler() -> str | None:
    """Where the C++ compiler is that torch.compile calls for a CPU; None where there is none."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))


def compiles_for_cpu() -> bool:
    """Whether torch.compile has what it needs for a CPU: a C++ compiler and Python's headers."""
    return cpp_compiler() is not None and Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def largest_tensor(model_config: ModelConfig, micro_batch_size: int) -> int:
    """The bytes of the largest tensor of a training step: the embedding, or the logits of a micro-batch, in float32."""
    return (
        4
        * model_config.vocabulary
        * max(model_config.d_model, micro_batch_size * model_config.context_length)
    )


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
