"""The keys and values that a model has already computed, kept so that the next token costs one position."""

# Shape legend: b batch, t new positions, s positions so far, m most positions, h key-value heads, e head width.

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
        shape = (config.n_layers, 2, batch_size, config.kv_heads, self.max_length, config.head_size)
        self._buffers = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def layer(self, index: int) -> LayerCache:
        """Return the share of layer `index`."""
        key_bhme, value_bhme = self._buffers[index]
        return LayerCache(key_bhme, value_bhme, self.length)

    def advance(self, steps: int) -> None:
        """Count `steps` new positions, once every layer has written them."""
        self.length += steps

    def reset(self) -> None:
        """Forget everything, keeping the buffers."""
        self.length = 0
