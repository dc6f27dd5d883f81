"""All initial values, each tensor's drawn from its own name, so that every strategy starts from the same weights."""

import hashlib
import math

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from llm.model.config import ModelConfig
from llm.model.transformer import Transformer

# The projections that write into the residual stream.
OUTPUTS = ("attention.output.weight", "feed_forward.down.weight")


@torch.no_grad()
def init_weights(model: Transformer, seed: int) -> None:
    """Fill every parameter of `model`, in place, as `initial_value` says; the order does not matter.

    The model may lie on any device, come from `to_empty`, or be sharded: each rank then keeps its share.
    """
    for name, parameter in model.named_parameters():
        value = initial_value(name, parameter.shape, model.config, seed)
        if isinstance(parameter, DTensor):
            # Every rank drew the same tensor, so there is nothing to send (src_data_rank=None).
            value = distribute_tensor(
                value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
            )
        parameter.copy_(value)


def initial_value(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """Return the float32 CPU tensor that parameter `name` starts from: a function of its arguments alone.

    Matrices are normal with `init_std`; those that write into the residual stream have it divided by
    sqrt(2 * n_layers), so that the stream's variance does not grow with depth (GPT-2).
    """
    if name.endswith("bias"):
        return torch.zeros(shape)
    if "norm" in name:
        return torch.ones(shape)
    if name.endswith(OUTPUTS) and config.zero_init_outputs:
        return torch.zeros(shape)
    std = config.init_std / math.sqrt(2 * config.n_layers) if name.endswith(OUTPUTS) else config.init_std
    return torch.empty(shape).normal_(0.0, std, generator=_generator(name, seed))


def _generator(name: str, seed: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
