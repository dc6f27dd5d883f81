"""Multi-head, grouped-query and multi-query attention, over one sequence or from one to another.

Shapes: b batch, t new positions, s positions that can be looked at, h heads, k key-value heads, G query positions of all
heads that share one of those, d width, e width of a head.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from llm.model.cache import LayerCache, RaggedLayerCache
from llm.model.config import ModelConfig
from llm.model.layers import build_norm, cast_once
from llm.model.mask import AttentionKwargs
from llm.model.position import Rotation, rotate

LONGEST_COMPOSED = 1024  # positions
CAUSAL_BLOCK = 256  # queries that are composed at once
# Up to here, keys of one query are cast to float32 and multiplied in less time than bfloat16 products take: of 12 heads
# of 64, one row of 80 positions 39 and 95 us, eight rows 223 and 350; eight of 256 (1.6 million) 1,082 and 934.
MOST_CAST = 2**19  # numbers
CACHE_LINE = 16  # numbers of float32 that a CPU reads from memory at once
FEWEST_PREFETCHED, MOST_PREFETCHED = 2**17, 2**20  # numbers


class AttentionContext(NamedTuple):
    """What a layer's attention is told of its positions: which see which, as `kwargs`, and how they are turned."""

    kwargs: AttentionKwargs
    rotation: Rotation | None = None


class KeysValues(NamedTuple):
    """What can be looked at, (b, h, s, e) each."""

    key_bhse: Tensor
    value_bhse: Tensor


class Attention(nn.Module):
    """Attention of a sequence to itself (arXiv 1706.03762, 2305.13245)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.grouped = config.kv_heads != config.n_heads
        self.dropout = config.dropout
        self.scale = config.attention_scale
        bias = config.attention_bias
        self.query = nn.Linear(config.d_model, config.n_heads * config.head_size, bias=bias)
        self.key = nn.Linear(config.d_model, config.kv_heads * config.head_size, bias=bias)
        self.value = nn.Linear(config.d_model, config.kv_heads * config.head_size, bias=bias)
        self.output = nn.Linear(config.n_heads * config.head_size, config.d_model, bias=config.output_bias)
        self.query_norm = build_norm(config, config.head_size) if config.qk_norm else nn.Identity()
        self.key_norm = build_norm(config, config.head_size) if config.qk_norm else nn.Identity()

    def forward(
        self, x_btd: Tensor, context: AttentionContext, cache: LayerCache | RaggedLayerCache | None = None
    ) -> Tensor:
        """Mix `x_btd` over time; `cache` brings the positions before it."""
        query_bthe, key_bthe, value_bthe = self.project(x_btd)
        query_bthe, key_bthe = self.query_norm(query_bthe), self.key_norm(key_bthe)
        if context.rotation is not None:
            query_bthe, key_bthe = rotate(query_bthe, context.rotation), rotate(key_bthe, context.rotation)
        keys_values = KeysValues(key_bthe.transpose(1, 2), value_bthe.transpose(1, 2))
        if cache is not None:
            keys_values = KeysValues(*cache.extend(*keys_values))
            prefetch_into_cpu_cache(keys_values)
        return self._attend_and_project(query_bthe, keys_values, context.kwargs)

    def project(self, x_btd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (b, t, h, e)."""
        x_btd = cast_once(x_btd)
        return self.heads(self.query(x_btd)), self.heads(self.key(x_btd)), self.heads(self.value(x_btd))

    def heads(self, x_btd: Tensor) -> Tensor:
        """Return what a product gave (b, t, h * e) head by head, (b, t, h, e)."""
        # The number of heads is inferred, since tensor parallelism leaves each rank some of them.
        return x_btd.unflatten(-1, (-1, self.head_size))

    def _attend_and_project(
        self, query_bthe: Tensor, keys_values: KeysValues, kwargs: AttentionKwargs
    ) -> Tensor:
        query_bhte = query_bthe.transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        if "block_mask" in kwargs:
            mixed_bhte = flex_attention(
                query_bhte, *keys_values, scale=self.scale, enable_gqa=self.grouped, **kwargs
            )
        elif composes_faster(query_bhte, keys_values.key_bhse) and not dropout:
            mixed_bhte = composed_attention(query_bhte, *keys_values, scale=self.scale, **kwargs)
        else:
            mixed_bhte = F.scaled_dot_product_attention(
                query_bhte,
                *keys_values,
                dropout_p=dropout,
                scale=self.scale,
                enable_gqa=self.grouped,
                **_of_dtype(kwargs, query_bhte.dtype),
            )
        return self.output(mixed_bhte.transpose(1, 2).flatten(2))


class CrossAttention(Attention):
    """Attention to a source, another sequence, whose keys and values are computed once for all that attends to it."""

    def project_source(self, memory_bsd: Tensor) -> KeysValues:
        """Return the keys and values of the source, of its hidden states."""
        memory_bsd = cast_once(memory_bsd)
        key_bshe, value_bshe = self.heads(self.key(memory_bsd)), self.heads(self.value(memory_bsd))
        return KeysValues(self.key_norm(key_bshe).transpose(1, 2), value_bshe.transpose(1, 2))

    def attend(self, x_btd: Tensor, keys_values: KeysValues, kwargs: AttentionKwargs) -> Tensor:
        """Return what each position of `x_btd` takes from the source, (b, t, d)."""
        query_bthe = self.query_norm(self.heads(self.query(x_btd)))
        return self._attend_and_project(query_bthe, keys_values, kwargs)


def prefetch_into_cpu_cache(keys_values: KeysValues) -> None:
    """Read one number of every cache line, so that attention's kernel finds keys and values in the CPU's cache.

    Does nothing but on a CPU in float32, of sizes for which it pays.
    """
    # torch's kernel goes through them a head at a time, and waits for memory at each. Of 50 positions, 12 heads of 64 and
    # eight rows it takes 260 us, 180 with this, and 98 of what is in the cache already. Fewer stay there anyway; more
    # might not stay there until they are used.
    key_bhse, value_bhse = keys_values
    if not key_bhse.is_cpu or key_bhse.dtype is not torch.float32:
        return
    if FEWEST_PREFETCHED <= key_bhse.numel() <= MOST_PREFETCHED:
        key_bhse[..., ::CACHE_LINE].sum()
        value_bhse[..., ::CACHE_LINE].sum()


def _of_dtype(kwargs: AttentionKwargs, dtype: torch.dtype) -> AttentionKwargs:
    """Return `kwargs` with what is added to scores as torch's kernel wants it."""
    bias = kwargs.get("attn_mask")
    if bias is None or not bias.is_floating_point():
        return kwargs
    return {"attn_mask": bias.to(dtype)}


def composes_faster(query_bhte: Tensor, key_bhse: Tensor) -> bool:
    """Whether plain matrix products beat torch's own kernel, in time and within reasonable memory."""
    # On CPUs that kernel runs in bfloat16 at a third of the speed of the products themselves. In training the compiler
    # fuses the softmax between them: 57 of a step's 205 ms at 13.8 million parameters become about 25 on two Zen 4
    # cores. The weights are kept for the backward pass. In decoding there is but one query, and little to fuse.
    if not query_bhte.is_cpu or query_bhte.dtype is not torch.bfloat16:
        return False
    decoding = query_bhte.shape[2] == 1
    return decoding or (torch.compiler.is_compiling() and key_bhse.shape[2] <= LONGEST_COMPOSED)


def composed_attention(
    query_bhte: Tensor,
    key_bhse: Tensor,
    value_bhse: Tensor,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """What `scaled_dot_product_attention` gives, written out; queries may have several heads for each of the keys'.

    The softmax is in float32 whatever the inputs are.
    """
    scale = query_bhte.shape[-1] ** -0.5 if scale is None else scale
    if query_bhte.dtype is torch.bfloat16 and query_bhte.shape[2] == 1 and key_bhse.numel() <= MOST_CAST:
        mixed_bhte = _compose(query_bhte.float(), key_bhse.float(), value_bhse.float(), attn_mask, scale)
        return mixed_bhte.to(query_bhte.dtype)
    if not is_causal:
        return _compose(query_bhte, key_bhse, value_bhse, attn_mask, scale)
    # Each block of queries sees the keys up to its own end: of 512 positions a quarter is never multiplied, of 1,024
    # three eighths. Smaller blocks spare more and compile longer.
    t = query_bhte.shape[2]
    blocks = []
    for start in range(0, t, CAUSAL_BLOCK):
        end = min(start + CAUSAL_BLOCK, t)
        seen_ts = torch.ones(end - start, end, dtype=torch.bool, device=query_bhte.device).tril(start)
        block_bhte = query_bhte[:, :, start:end]
        blocks.append(_compose(block_bhte, key_bhse[:, :, :end], value_bhse[:, :, :end], seen_ts, scale))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)


def _compose(
    query_bhte: Tensor, key_bhse: Tensor, value_bhse: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    # With heads and positions side by side in G, the products stay plain batches of matrices.
    b, h, t, e = query_bhte.shape
    k, s = key_bhse.shape[1], key_bhse.shape[2]
    query_bkGe = query_bhte.reshape(b, k, h // k * t, e)
    scores_bhts = (query_bkGe @ key_bhse.mT).view(b, h, t, s).float() * scale
    if mask is not None and mask.is_floating_point():
        scores_bhts = scores_bhts + mask
    elif mask is not None:
        scores_bhts = scores_bhts.masked_fill(~mask, -torch.inf)
    weights_bkGs = scores_bhts.softmax(-1).to(value_bhse.dtype).view(b, k, h // k * t, s)
    return (weights_bkGs @ value_bhse).view(b, h, t, e)
