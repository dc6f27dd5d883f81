"""The random state of a process: torch, its accelerator, NumPy and Python."""

import random

import numpy as np
import torch
from torch import Tensor

from llm.errors import CheckpointError

MERSENNE_TWISTER_WORDS = 624


def random_state() -> dict[str, Tensor]:
    """This process's random states: torch, its accelerator, NumPy and Python."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy.keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy.rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
        "python": torch.tensor([version, *internal], dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss_next is None else [gauss_next], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Put back what `random_state` gave.

    Raises:
        CheckpointError: it is something else.
    """
    try:
        _set_random_state(states)
    except (LookupError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"The checkpoint's random state cannot be put back: {error}.") from error


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    position, has_gauss, gauss = states["numpy.rest"].tolist()
    keys = states["numpy.keys"].numpy().astype(np.uint32)
    # NumPy takes any position, and reads there.
    if not 0 <= position <= MERSENNE_TWISTER_WORDS:
        raise ValueError(f"position {position:g} of {MERSENNE_TWISTER_WORDS}")
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))  # noqa: NPY002
    version, *internal = states["python"].tolist()
    random.setstate((version, tuple(internal), next(iter(states["python.gauss"].tolist()), None)))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
