"""Attention as an accelerator has it: a step is traced on a CPU, whose kernels know neither dropout nor a learned bias."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

FLASH = torch.ops.aten._scaled_dot_product_flash_attention
EFFICIENT = torch.ops.aten._scaled_dot_product_efficient_attention


@contextmanager
def attention_of(accelerator: str) -> Iterator[None]:
    """Within, torch's attention takes the kernels that keep no scores, as it does on accelerators; a CPU keeps its own."""
    if accelerator == "cpu":
        yield
        return
    own = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _attend  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


def _attend(
    query_bhte: Tensor,
    key_bhse: Tensor,
    value_bhse: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """FlashAttention in half precision without a mask, else the memory-efficient kernel."""
    if attn_mask is None and query_bhte.dtype.itemsize == 2:
        return FLASH(query_bhte, key_bhse, value_bhse, dropout_p, is_causal, scale=scale)[0]
    if enable_gqa:
        groups = query_bhte.shape[1] // key_bhse.shape[1]
        key_bhse, value_bhse = (x.repeat_interleave(groups, 1) for x in (key_bhse, value_bhse))
    shape = (*query_bhte.shape[:3], key_bhse.shape[2])
    bias = None if attn_mask is None else _added(attn_mask, query_bhte.dtype).expand(shape)
    return EFFICIENT(query_bhte, key_bhse, value_bhse, bias, True, dropout_p, is_causal, scale=scale)[0]


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores."""
    return mask if mask.is_floating_point() else torch.zeros_like(mask, dtype=dtype)
