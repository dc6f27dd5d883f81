"""All initial values, each tensor's drawn from its own name, so that every strategy starts from the same weights."""

import hashlib
import math
import re

import torch
from torch import Tensor

from llm.model.config import ModelConfig
from llm.model.transformer import Transformer

# The projections that write into the residual stream.
OUTPUTS = ("attention.output.weight", "feed_forward.down.weight")

# What torch.compile and activation checkpointing put into names.
WRAPPERS = re.compile(r"_orig_mod\.|_checkpoint_wrapped_module\.")


@torch.no_grad()
def init_weights(model: Transformer, seed: int) -> None:
    """Fill every parameter of `model`, in place, as `initial_value` says; the order does not matter.

    The model may lie on any device, come from `to_empty`, or be sharded: each rank then keeps its share.
    """
    for wrapped_name, parameter in model.named_parameters():
        name = WRAPPERS.sub("", wrapped_name)
        parameter.copy_(_share(initial_value(name, parameter.shape, model.config, seed), parameter))


def initial_value(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """Return the float32 CPU tensor that parameter `name` starts from: a function of its arguments alone.

    Matrices are normal with `init_std`; those that write into the residual stream have it divided by
    sqrt(2 * n_layers), so that the stream's variance does not grow with depth (GPT-2).
    """
    value = torch.empty(shape, dtype=torch.float32, device="cpu")
    if name.endswith("bias"):
        return value.zero_()
    if "norm" in name:
        return value.fill_(1.0)
    std = config.init_std
    if name.endswith("attention.query.weight") and config.attention_scale is not None:
        # Scores then start as they do with the usual scale (T5, whose scale is 1).
        std *= config.head_size**-0.5 / config.attention_scale
    if name.endswith(OUTPUTS):
        std *= 0.0 if config.zero_init_outputs else 1 / math.sqrt(2 * config.n_layers)
    return value.normal_(0.0, std, generator=generator_for(name, seed))


def generator_for(name: str, seed: int) -> torch.Generator:
    """What draws the first values of parameter `name`, on the CPU."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _share(value: Tensor, parameter: Tensor) -> Tensor:
    """Return `value` laid out as `parameter` is, which may be sharded over processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor  # a second to import

    if not isinstance(parameter, DTensor):
        return value
    # Every rank drew the same tensor, so there is nothing to send (src_data_rank=None).
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
