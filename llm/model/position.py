"""How a model knows order: learned and sinusoidal vectors that are added, and rotary turns of queries and keys.

Shapes: b batch, t time, h heads, d width, e width of a head, p longest position.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llm.model.config import ModelConfig, RopeScaling

# Where rows begin: at one position, or each at its own (b,).
Start = int | Tensor


def window(start: Start, length: int) -> slice | Tensor:
    """What takes `length` positions from `start` out of a table: a slice, or a number (b, t) for each."""
    if isinstance(start, int):
        return slice(start, start + length)
    return start[:, None] + torch.arange(length, device=start.device)


class Rotation(NamedTuple):
    """Cosines and signed sines of some positions' angles, each (t, 1, e) or (b, t, 1, e), to broadcast over heads."""

    cos_t1e: Tensor
    sin_t1e: Tensor


class _Tabled(nn.Module):
    """Holds tables that follow from the config alone, so that they are neither saved nor loaded."""

    def _fill(self) -> None:
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Tabled":
        # Moves, casts and `to_empty` all pass here. Filling afresh makes a model that was built on the meta device
        # right without a word from its user, and one that was cast to bfloat16 and back exact again.
        super()._apply(fn, recurse)
        self._fill()
        return self


class Rotary(_Tabled):
    """Rotary position embedding, pairing element i with i + e/2 of the e that are turned (arXiv 2104.09864).

    `theta` is the config's unless another is given.
    """

    cos_pe: Tensor
    sin_pe: Tensor

    def __init__(self, config: ModelConfig, theta: float | None = None) -> None:
        super().__init__()
        self.theta = config.rope_theta if theta is None else theta
        self.scaling, self.size = config.rope_scaling, config.rotary_size
        shape = (config.context_length, self.size)
        self.register_buffer("cos_pe", torch.empty(shape), persistent=False)
        self.register_buffer("sin_pe", torch.empty(shape), persistent=False)
        self._fill()

    @torch.no_grad()
    def _fill(self) -> None:
        # In float32 whatever the model's dtype: the angles that published weights were trained with, to the bit.
        device = self.cos_pe.device
        frequency_e = frequencies(self.theta, self.size, device)
        if self.scaling is not None:
            frequency_e = stretch(frequency_e, self.scaling)
        angle_pe = torch.outer(
            torch.arange(len(self.cos_pe), dtype=torch.float32, device=device), frequency_e
        )
        cos_pe, sin_pe = angle_pe.cos(), angle_pe.sin()
        self.cos_pe.copy_(torch.cat((cos_pe, cos_pe), dim=-1))
        self.sin_pe.copy_(torch.cat((-sin_pe, sin_pe), dim=-1))

    def forward(self, start: Start, length: int) -> Rotation:
        """Return the rotation of positions `start` to `start + length`."""
        taken = window(start, length)
        return Rotation(self.cos_pe[taken].unsqueeze(-2), self.sin_pe[taken].unsqueeze(-2))


def frequencies(theta: float, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the turn a position of each pair of `size` elements, in radians."""
    steps_e = torch.arange(0, size, 2, dtype=torch.float32, device=device)
    return 1.0 / theta ** (steps_e / size)


def stretch(frequency_e: Tensor, scaling: RopeScaling) -> Tensor:
    """Lower the rotary frequencies as `RopeScaling` says."""
    wavelength_e = 2 * math.pi / frequency_e
    turns_e = scaling.original_context_length / wavelength_e
    kept_e = (turns_e - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept_e = kept_e.clamp(0, 1)
    return (1 - kept_e) * frequency_e / scaling.factor + kept_e * frequency_e


def rotate(x_bthe: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (i, i + e/2) of every head by its position's angle; what is wider than the angles stays."""
    turned = rotation.cos_t1e.shape[-1]
    if turned < x_bthe.shape[-1]:
        return torch.cat((rotate(x_bthe[..., :turned], rotation), x_bthe[..., turned:]), dim=-1)
    cos, sin = rotation.cos_t1e.to(x_bthe.dtype), rotation.sin_t1e.to(x_bthe.dtype)
    # Rolling by half a head puts each element's partner in its place.
    return torch.addcmul(x_bthe * cos, x_bthe.roll(x_bthe.shape[-1] // 2, dims=-1), sin)


class RelativePosition(nn.Module):
    """T5's trained number a head for each distance, added to the scores (arXiv 1910.10683).

    Half of the buckets hold one distance each, the rest ever more, up to `relative_distance`. Without `causal`, one
    half of all is for what lies before a position and one for what lies after it.
    """

    def __init__(self, config: ModelConfig, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.furthest = causal, config.relative_distance
        self.weight = nn.Parameter(torch.empty(config.relative_buckets, config.n_heads))

    def forward(self, behind_ts: Tensor) -> Tensor:
        """Return what is added to the scores (..., h, t, s) of keys that lie `behind_ts` (..., t, s) their query."""
        return self.weight[self._bucket(behind_ts)].movedim(-1, -3)

    def _bucket(self, behind_ts: Tensor) -> Tensor:
        """Return the bucket of keys that lie so far behind their query."""
        buckets = len(self.weight)
        if self.causal:
            return self._bucket_of_distance(behind_ts.clamp(min=0), buckets)
        side_ts = (behind_ts < 0) * (buckets // 2)
        return side_ts + self._bucket_of_distance(behind_ts.abs(), buckets // 2)

    def _bucket_of_distance(self, distance_ts: Tensor, buckets: int) -> Tensor:
        single = buckets // 2
        # In float32, as published weights were trained: at the edges the rounding decides.
        octaves_ts = torch.log(distance_ts.clamp(min=1).float() / single) / math.log(self.furthest / single)
        wide_ts = single + (octaves_ts * (buckets - single)).long()
        return torch.where(distance_ts < single, distance_ts, wide_ts.clamp(max=buckets - 1))


class LearnedPositions(nn.Module):
    """One trained vector a position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.context_length, config.d_model))

    def forward(self, x_btd: Tensor, start: Start) -> Tensor:
        """Add to `x_btd`, whose first position is `start`."""
        return x_btd + self.weight[window(start, x_btd.shape[1])]


class SinusoidalPositions(_Tabled):
    """Fixed sines, then cosines, of geometrically spaced wavelengths (arXiv 1706.03762)."""

    table_pd: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.register_buffer("table_pd", torch.empty(config.context_length, config.d_model), persistent=False)
        self._fill()

    @torch.no_grad()
    def _fill(self) -> None:
        if self.table_pd.is_meta:
            return
        # Made in float64 and kept to float32's precision whatever the model's dtype: what published weights were
        # trained with, to the bit. On the CPU, since not every device has float64.
        length, width = self.table_pd.shape
        steps_d = torch.arange(0, width, 2, dtype=torch.float64, device="cpu")
        position_p = torch.arange(length, dtype=torch.float64, device="cpu")
        angle_pd = torch.outer(position_p, 10000.0 ** (-steps_d / width))
        self.table_pd.copy_(torch.cat((angle_pd.sin(), angle_pd.cos()), dim=-1).float())

    def forward(self, x_btd: Tensor, start: Start) -> Tensor:
        """Add to `x_btd`, whose first position is `start`."""
        return x_btd + self.table_pd[window(start, x_btd.shape[1])]


ADDED_POSITIONS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
}
