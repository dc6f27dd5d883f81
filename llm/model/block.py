"""Blocks of attention and feed-forward, where a residual stream places their norms, and stacks of blocks."""

# Shape legend: b batch, t time, d width.

from collections.abc import Callable

from torch import Tensor, nn

from llm.model.attention import Attention
from llm.model.cache import KVCache, LayerCache
from llm.model.config import ModelConfig
from llm.model.layers import build_feed_forward, build_norm
from llm.model.position import Rotary, Rotation

Sublayer = Callable[[Tensor], Tensor]


class Residual(nn.Module):
    """Adds named sublayers to the stream, and alone knows where their norms and dropout stand.

    pre: x + f(norm(x)), one after the other. post: norm(x + f(x)), likewise (arXiv 2002.04745 compares them).
    parallel: x + f(norm(x)) + g(norm(x)), each with a norm of its own, as in GPT-NeoX (arXiv 2204.06745).
    """

    def __init__(self, config: ModelConfig, *names: str) -> None:
        super().__init__()
        self.placing = config.residual
        self.norms = nn.ModuleDict({name: build_norm(config, config.d_model) for name in names})
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


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to the stream."""

    def __init__(self, config: ModelConfig, *, causal: bool) -> None:
        super().__init__()
        self.attention = Attention(config, causal=causal)
        self.feed_forward = build_feed_forward(config)
        self.residual = Residual(config, "attention", "feed_forward")

    def forward(
        self, x_btd: Tensor, rotation: Rotation | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Return the stream after this layer."""

        def attend(stream_btd: Tensor) -> Tensor:
            return self.attention(stream_btd, rotation, cache)

        return self.residual(x_btd, attention=attend, feed_forward=self.feed_forward)


class Stack(nn.Module):
    """Blocks in sequence and the norm that ends them, with the positions that attention itself applies."""

    def __init__(self, config: ModelConfig, *, causal: bool) -> None:
        super().__init__()
        self.rotary = Rotary(config) if config.position == "rotary" else None
        self.blocks = nn.ModuleList(Block(config, causal=causal) for _ in range(config.n_layers))
        # Under post-norm the last block has just normalised.
        self.norm = nn.Identity() if config.residual == "post" else build_norm(config, config.d_model)

    def forward(self, x_btd: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the hidden states of `x_btd`, which follows what `cache` holds; the cache grows by it."""
        length = x_btd.shape[1]
        rotation = (
            self.rotary(0 if cache is None else cache.length, length) if self.rotary is not None else None
        )
        for index, block in enumerate(self.blocks):
            x_btd = block(x_btd, rotation, None if cache is None else cache.layer(index))
        if cache is not None:
            cache.advance(length)
        return self.norm(x_btd)
