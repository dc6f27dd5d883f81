"""Multi-head, grouped-query and multi-query attention over the positions before and at each one."""

# Shape legend: b batch, t new positions, s positions that can be looked at, h heads, d width, e width of a head.

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.model.cache import LayerCache
from llm.model.config import ModelConfig
from llm.model.layers import build_norm, cast_once
from llm.model.position import Rotation, rotate


class Attention(nn.Module):
    """Self-attention; with `causal`, no position sees a later one (arXiv 1706.03762, 2305.13245)."""

    def __init__(self, config: ModelConfig, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.head_size = config.head_size
        self.grouped = config.kv_heads != config.n_heads
        self.dropout = config.dropout
        bias = config.attention_bias
        self.query = nn.Linear(config.d_model, config.n_heads * config.head_size, bias=bias)
        self.key = nn.Linear(config.d_model, config.kv_heads * config.head_size, bias=bias)
        self.value = nn.Linear(config.d_model, config.kv_heads * config.head_size, bias=bias)
        self.output = nn.Linear(config.n_heads * config.head_size, config.d_model, bias=bias)
        self.query_norm = build_norm(config, config.head_size) if config.qk_norm else nn.Identity()
        self.key_norm = build_norm(config, config.head_size) if config.qk_norm else nn.Identity()

    def forward(
        self, x_btd: Tensor, rotation: Rotation | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Mix `x_btd` over time; `cache` brings the positions before it."""
        x_btd = cast_once(x_btd)
        query_bthe = self.query_norm(self._heads(self.query(x_btd)))
        key_bthe = self.key_norm(self._heads(self.key(x_btd)))
        value_bhte = self._heads(self.value(x_btd)).transpose(1, 2)
        if rotation is not None:
            query_bthe, key_bthe = rotate(query_bthe, rotation), rotate(key_bthe, rotation)
        key_bhte = key_bthe.transpose(1, 2)
        if cache is not None:
            key_bhte, value_bhte = cache.extend(key_bhte, value_bhte)
        mixed_bhte = self._attend(query_bthe.transpose(1, 2), key_bhte, value_bhte)
        return self.output(mixed_bhte.transpose(1, 2).flatten(2))

    def _heads(self, x_btd: Tensor) -> Tensor:
        # The number of heads is inferred, since tensor parallelism leaves each rank some of them.
        return x_btd.unflatten(-1, (-1, self.head_size))

    def _attend(self, query_bhte: Tensor, key_bhse: Tensor, value_bhse: Tensor) -> Tensor:
        mask = causal_mask(query_bhte, key_bhse) if self.causal else {}
        return F.scaled_dot_product_attention(
            query_bhte,
            key_bhse,
            value_bhse,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.grouped,
            **mask,
        )


def causal_mask(query_bhte: Tensor, key_bhse: Tensor) -> dict[str, Any]:
    """Return what makes the kernel causal when the queries are the last t of the s positions."""
    t, s = query_bhte.shape[2], key_bhse.shape[2]
    if t == s:
        return {"is_causal": True}
    if t == 1:
        return {}
    return {"attn_mask": torch.ones(t, s, dtype=torch.bool, device=query_bhte.device).tril(s - t)}
