"""Blocks of attention and feed-forward, where a residual stream places their norms, and stacks of blocks.

Shapes: b batch, t time, d width.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

from torch import Tensor, nn

from llm.model.attention import Attention, AttentionContext, CrossAttention, KeysValues
from llm.model.cache import Cache, LayerCache, RaggedLayerCache
from llm.model.config import ModelConfig
from llm.model.layers import build_feed_forward, build_norm
from llm.model.mask import (
    AttentionKwargs,
    AttentionMask,
    attention_kwargs,
    cross_attention_kwargs,
    distances,
    works_sparse,
)
from llm.model.position import RelativePosition, Rotary, Start

Sublayer = Callable[[Tensor], Tensor]


class Residual(nn.Module):
    """Adds named sublayers to the stream, and alone knows where their norms and dropout stand.

    pre: x + f(norm(x)), one after the other. post: norm(x + f(x)), likewise (arXiv 2002.04745 compares them).
    parallel: x + f(norm(x)) + g(norm(x)), each with a norm of its own, as in GPT-NeoX (arXiv 2204.06745).
    """

    def __init__(self, config: ModelConfig, *names: str, normed: str | None = None) -> None:
        """`normed` is a sublayer whose input needs no norm."""
        super().__init__()
        self.placing = config.residual
        self.norms = nn.ModuleDict(
            {name: nn.Identity() if name == normed else build_norm(config, config.d_model) for name in names}
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, **sublayers: Sublayer) -> Tensor:
        """Return the stream after all `sublayers`, in their order."""
        stream_btd = x_btd
        for name, sublayer in sublayers.items():
            norm = self.norms[name]
            if self.placing == "post":
                stream_btd = norm(stream_btd + self.dropout(sublayer(stream_btd)))
            else:
                source_btd = x_btd if self.placing == "parallel" else stream_btd
                stream_btd = stream_btd + self.dropout(sublayer(norm(source_btd)))
        return stream_btd


class Memory(NamedTuple):
    """What a decoder may look at of a source: keys and values a layer, and the document of each position."""

    layers: list[KeysValues]
    documents_bs: Tensor | None


class Block(nn.Module):
    """One layer: attention, with `cross` attention to a source, then feed-forward, each added to the stream."""

    def __init__(self, config: ModelConfig, *, cross: bool, first: bool) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.cross_attention = CrossAttention(config) if cross else None
        self.feed_forward = build_feed_forward(config)
        names = ("attention", "cross_attention", "feed_forward") if cross else ("attention", "feed_forward")
        # The embedding's own norm has just normalised, as the modern encoder has it.
        normed = first and config.embedding_norm and config.residual == "pre"
        self.residual = Residual(config, *names, normed="attention" if normed else None)

    def forward(
        self,
        x_btd: Tensor,
        context: AttentionContext,
        cache: LayerCache | RaggedLayerCache | None = None,
        source: tuple[KeysValues, AttentionKwargs] | None = None,
    ) -> Tensor:
        """Return the stream after this layer, which looks at `source` where it has cross-attention."""
        sublayers: dict[str, Sublayer] = {"attention": partial(self.attention, context=context, cache=cache)}
        if self.cross_attention is not None and source is not None:
            keys_values, kwargs = source
            sublayers["cross_attention"] = partial(
                self.cross_attention.attend, keys_values=keys_values, kwargs=kwargs
            )
        return self.residual(x_btd, **sublayers, feed_forward=self.feed_forward)

    def project_source(self, memory_bsd: Tensor) -> KeysValues:
        """Return the keys and values that cross-attention makes of a source's hidden states."""
        assert self.cross_attention is not None
        return self.cross_attention.project_source(memory_bsd)


class Stack(nn.Module):
    """Blocks in sequence and the norm that ends them, with the positions that attention itself applies."""

    def __init__(self, config: ModelConfig, *, causal: bool, cross: bool = False, n_layers: int) -> None:
        super().__init__()
        self.causal, self.window = causal, config.attention_window
        self.drops = config.dropout > 0.0  # FlexAttention cannot drop weights
        self.rotary = Rotary(config) if config.position == "rotary" else None
        self.local_rotary = (
            Rotary(config, config.local_rope_theta) if config.local_rope_theta else self.rotary
        )
        self.relative_position = (
            RelativePosition(config, causal=causal) if config.position == "relative" else None
        )
        self.blocks = nn.ModuleList(Block(config, cross=cross, first=i == 0) for i in range(n_layers))
        every = config.global_attention_every
        self.is_local = [
            self.window is not None and (every is None or index % every > 0) for index in range(n_layers)
        ]
        # Under post-norm the last block has just normalised.
        self.norm = nn.Identity() if config.residual == "post" else build_norm(config, config.d_model)

    def forward(
        self,
        x_btd: Tensor,
        cache: Cache | None = None,
        documents_bt: Tensor | None = None,
        memory: Memory | None = None,
        prefix_b: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states of `x_btd`, which follows what `cache` holds; the cache grows by it."""
        length = x_btd.shape[1]
        context_of = partial(self._attention_context, x_btd, cache, documents_bt, prefix_b)
        everywhere = context_of(None, self.rotary)
        nearby = context_of(self.window, self.local_rotary) if any(self.is_local) else everywhere
        crossing = None if memory is None else cross_attention_kwargs(documents_bt, memory.documents_bs)
        for index, block in enumerate(self.blocks):
            source = None if memory is None else (memory.layers[index], crossing)
            layer = None if cache is None else cache.layer(index)
            x_btd = block(x_btd, nearby if self.is_local[index] else everywhere, layer, source)
        if cache is not None:
            cache.advance(length)
        return self.norm(x_btd)

    def project_source(self, memory_bsd: Tensor, documents_bs: Tensor | None) -> Memory:
        """Return what the blocks may look at of a source's hidden states."""
        return Memory([cast(Block, block).project_source(memory_bsd) for block in self.blocks], documents_bs)

    def _attention_context(
        self,
        x_btd: Tensor,
        cache: Cache | None,
        documents_bt: Tensor | None,
        prefix_b: Tensor | None,
        window: int | None,
        rotary: Rotary | None,
    ) -> AttentionContext:
        t = x_btd.shape[1]
        s = t if cache is None else cache.length + t
        start: Start = 0 if cache is None else cache.start
        start_b = None if isinstance(start, int) else start
        relative = self.relative_position
        kwargs = attention_kwargs(
            AttentionMask(self.causal, window, documents_bt, start_b, prefix_b),
            t,
            s,
            x_btd.device,
            bias_hts=None if relative is None else relative(distances(t, s, x_btd.device, start_b)),
            sparse=works_sparse(x_btd.device) and not self.drops,
        )
        return AttentionContext(kwargs, None if rotary is None else rotary(start, t))
