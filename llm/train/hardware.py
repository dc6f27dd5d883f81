"""What the machine can do, asked once and then written into the run."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from llm.errors import ConfigError
from llm.model import ModelConfig

BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


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


def cpp_compiler() -> str | None:
    """Where the C++ compiler is that torch.compile calls for a CPU; None where there is none."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))


def compiles_for_cpu() -> bool:
    """Whether torch.compile has what it needs for a CPU: a C++ compiler and Python's headers."""
    return cpp_compiler() is not None and Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def largest_tensor(shape: ModelConfig, micro_batch_size: int) -> int:
    """The bytes of the largest tensor of a training step: the embedding, or the logits of a micro-batch, in float32."""
    return 4 * shape.vocabulary * max(shape.d_model, micro_batch_size * shape.context_length)


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
