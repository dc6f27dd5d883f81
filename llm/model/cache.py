"""The keys and values that a model has already computed, kept so that the next token costs one position.

A pass takes a `Cache`: a KVCache, whose rows grow together, or a RaggedCache, whose rows are each somewhere else. A
CachePool keeps rows for longer than a pass, and makes both of them as views.

Shapes: b batch, t new positions, s positions so far, m most positions, h key-value heads, e head width.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from llm.errors import ConfigError
from llm.model.config import ModelConfig


class LayerCache(NamedTuple):
    """One layer's share of a KVCache: views of its buffers, and how much of them was filled before this pass."""

    key_bhme: Tensor
    value_bhme: Tensor
    length: int

    def extend(self, key_bhte: Tensor, value_bhte: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions and return all so far, (b, h, s, e) each."""
        # As many heads as come, since tensor parallelism leaves each rank some of them.
        heads, end = key_bhte.shape[1], self.length + key_bhte.shape[2]
        self.key_bhme[:, :heads, self.length : end] = key_bhte
        self.value_bhme[:, :heads, self.length : end] = value_bhte
        return self.key_bhme[:, :heads, :end], self.value_bhme[:, :heads, :end]


class RaggedLayerCache(NamedTuple):
    """One layer's share of a RaggedCache: views of its rows' buffers, and where each row begins."""

    key_bhme: Tensor
    value_bhme: Tensor
    row_b1: Tensor
    position_b1: Tensor
    length: int

    def extend(self, key_bhte: Tensor, value_bhte: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions and return all that the longest row has, (b, h, s, e) each."""
        t = key_bhte.shape[2]
        position_bt = self.position_b1
        if t > 1:
            position_bt = position_bt + torch.arange(t, device=position_bt.device)
        self.key_bhme[self.row_b1, :, position_bt] = key_bhte.transpose(1, 2)
        self.value_bhme[self.row_b1, :, position_bt] = value_bhte.transpose(1, 2)
        return self.key_bhme[:, :, : self.length + t], self.value_bhme[:, :, : self.length + t]


def _buffers(
    config: ModelConfig,
    rows: int,
    length: int,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """Room for the keys and values (layers, 2, b, h, m, e) of all layers."""
    by_position = (config.n_layers, 2, rows, length, config.kv_heads, config.head_size)
    by_head = (config.n_layers, 2, rows, config.kv_heads, length, config.head_size)
    zeros = partial(torch.zeros, device=device, dtype=dtype)
    empty = torch.empty(0, device=device, dtype=dtype)
    # In float32 on a CPU a position's heads stand side by side: a row's are written to one place and read from one end to
    # the other. Of 16 rows of 50 positions, 12 heads of 64, attention takes 0.41 ms a layer and otherwise 0.58. In
    # bfloat16 plain products read them, which want a head's positions side by side.
    if empty.is_cpu and empty.dtype is torch.float32:
        return zeros(by_position).transpose(3, 4)
    return zeros(by_head)


def _views(buffers: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The keys and the values (b, h, m, e) of each layer in `buffers` (layers, 2, b, h, m, e)."""
    # One operator for all layers: two of each layer's own take three times as long, at every step.
    views = buffers.flatten(0, 1).unbind()
    return list(zip(views[::2], views[1::2], strict=True))


class KVCache:
    """Buffers of fixed size for `batch_size` sequences that grow together, empty at first.

    Passed to `Transformer.forward`, which reads `length` as the position of its first token and advances it.
    Holds for inference alone: what a pass wrote is overwritten in place.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Room for `max_length` positions, by default the model's whole context; a longer one is a ConfigError."""
        self.max_length = config.context_length if max_length is None else max_length
        if self.max_length > config.context_length:
            raise ConfigError(
                f"a cache of {self.max_length} positions is longer than the model's context_length "
                f"{config.context_length}"
            )
        self._views = _views(_buffers(config, batch_size, self.max_length, device, dtype))
        self.length = 0

    @classmethod
    def over(cls, buffers: Tensor, length: int) -> "KVCache":
        """A cache that writes into `buffers` (layers, 2, b, h, m, e), of which `length` positions are filled."""
        cache = cls.__new__(cls)
        cache._views, cache.max_length, cache.length = _views(buffers), buffers.shape[-2], length
        return cache

    @property
    def start(self) -> int:
        """The position that the next pass begins at."""
        return self.length

    def layer(self, index: int) -> LayerCache:
        """Return the share of layer `index`."""
        return LayerCache(*self._views[index], self.length)

    def advance(self, steps: int) -> None:
        """Count `steps` new positions, once every layer has written them."""
        self.length += steps

    def reset(self) -> None:
        """Forget everything, keeping the buffers."""
        self.length = 0


class RaggedCache:
    """Rows of a CachePool, side by side, for one pass, in which each goes on from a position of its own.

    What a row's buffer holds beyond its own positions is not seen: the masks of a pass see to that.
    """

    def __init__(self, buffers: Tensor, starts: Sequence[int]) -> None:
        """`buffers` are (layers, 2, b, h, m, e); `starts` says how much of each row is filled."""
        self._views = _views(buffers)
        self.max_length = buffers.shape[-2]
        self.length = max(starts)
        self.start = torch.tensor(starts, device=buffers.device)
        self._start_b1 = self.start[:, None]
        self._row_b1 = torch.arange(len(starts), device=buffers.device)[:, None]

    def layer(self, index: int) -> RaggedLayerCache:
        """Return the share of layer `index`."""
        return RaggedLayerCache(*self._views[index], self._row_b1, self._start_b1, self.length)

    def advance(self, steps: int) -> None:
        """Nothing: whoever keeps the rows counts their positions."""


Cache = KVCache | RaggedCache


class CachePool:
    """Buffers of fixed size for rows that come, grow and go each on their own.

    Which of them are in use, and how far, is their user's to know.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Room for `rows` of `max_length` positions, by default the model's whole context."""
        length = config.context_length if max_length is None else max_length
        self._buffers = _buffers(config, rows, length, device, dtype)

    @staticmethod
    def row_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
        """What a row of the whole context takes."""
        numbers = config.n_layers * 2 * config.kv_heads * config.context_length * config.head_size
        return numbers * dtype.itemsize

    def row_view(self, row: int, length: int) -> KVCache:
        """`row`, of which `length` positions are filled, as a cache of its own."""
        return KVCache.over(self._buffers[:, :, row : row + 1], length)

    def rows_view(self, first: int, starts: Sequence[int]) -> RaggedCache:
        """As many rows from `first` on as there are `starts`, each filled up to its own."""
        return RaggedCache(self._buffers[:, :, first : first + len(starts)], starts)

    def read_rows(self, first: int, lengths: Sequence[int]) -> Tensor:
        """The keys and values (layers, 2, b, h, s, e) of as many rows as there are `lengths`, up to the longest."""
        return self._buffers[:, :, first : first + len(lengths), :, : max(lengths)]

    def write_row(self, row: int, layers: Sequence[Sequence[Tensor]]) -> None:
        """Put keys and values (h, s, e) of each layer at the beginning of `row`."""
        for kept, layer in zip(self._buffers, layers, strict=True):
            for buffer, given_hse in zip(kept, layer, strict=True):
                buffer[row, :, : given_hse.shape[1]] = given_hse

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        self._buffers[:, :, target, :, :length] = self._buffers[:, :, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two rows."""
        kept = self._buffers[:, :, one, :, :length].clone()
        self.copy(other, one, length)
        self._buffers[:, :, other, :, :length] = kept
