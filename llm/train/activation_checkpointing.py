"""Activation checkpointing, from outside the model: what of a block is computed again in the backward pass."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from llm.model import Transformer
from llm.train.sharding import blocks

# Every so many blocks, or all of them in part; None: nothing is computed again.
Checkpointing = int | Literal["selective"] | None

# What takes most of the time and least of the memory.
KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}


def apply_activation_checkpointing(net: Transformer, checkpointing: Checkpointing) -> None:
    """Let blocks keep less for their backward pass, in place: less memory for more time, and the same gradients.

    With n, every n-th block keeps its input alone (arXiv 1604.06174). With `selective`, each keeps that and the results
    of matrix products and of attention (arXiv 2205.05198). With None, nothing changes.
    """
    if checkpointing is None:
        return
    every, how = (1, {"context_fn": _keep_products}) if checkpointing == "selective" else (checkpointing, {})
    for index, block in enumerate(blocks(net)):
        if index % every == 0:
            block.forward = _checkpointed(block.forward, how)  # type: ignore[method-assign]


def _checkpointed(forward: Callable[..., Tensor], how: dict[str, Any]) -> Callable[..., Tensor]:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **how, **kwargs)

    return run


_keep_products = partial(
    create_selective_checkpoint_contexts,
    lambda context, op, *args, **kwargs: (
        CheckpointPolicy.MUST_SAVE if op in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
    ),
)
