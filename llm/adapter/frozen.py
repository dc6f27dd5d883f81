"""Frozen matrices in few bits: codes and scales in place of weights, which are made again whenever they are needed.

Shapes: i inputs, o outputs of a layer, c codes of a row, k blocks of a matrix, n the values of a block.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.errors import ConfigError

CODES, SCALES = "codes", "scales"
LARGEST = 127
BLOCK = 64  # values that share a scale, of four bits
TINY = torch.finfo(torch.float32).tiny


class Coded(NamedTuple):
    """A matrix in few bits."""

    codes: Tensor
    scales: Tensor


def _encode_int8(weight_oi: Tensor) -> Coded:
    scales_o1 = weight_oi.abs().amax(1, keepdim=True).clamp(min=TINY) / LARGEST
    return Coded((weight_oi / scales_o1).round().to(torch.int8), scales_o1)


def _decode_int8(coded: Coded, dtype: torch.dtype) -> Tensor:
    return coded.codes.to(dtype) * coded.scales.to(dtype)


def _levels() -> list[float]:
    """The 16 values of NF4: quantiles of a normal distribution, 0 among them (arXiv 2305.14314, section 3).

    There are eight on the side above 0, and seven below.
    """
    # So far from the ends that both sides have, on average, as much room there as between two quantiles.
    offset = 1 - (1 / 32 + 1 / 30) / 2
    quantile = NormalDist().inv_cdf
    above = [quantile(offset + (0.5 - offset) * n / 8) for n in range(8)]
    below = [-quantile(offset + (0.5 - offset) * n / 7) for n in range(7)]
    return [value / above[0] for value in sorted([*above, 0.0, *below])]


LEVELS = _levels()
BETWEEN_LEVELS = [(one + other) / 2 for one, other in pairwise(LEVELS)]


def _encode_nf4(weight_oi: Tensor) -> Coded:
    blocks_kn = weight_oi.float().reshape(-1, BLOCK)
    scales_k1 = blocks_kn.abs().amax(1, keepdim=True).clamp(min=TINY)
    edges_15 = torch.tensor(BETWEEN_LEVELS, device=weight_oi.device)
    nearest = torch.bucketize(blocks_kn / scales_k1, edges_15).to(torch.uint8)
    pairs = nearest.reshape(len(weight_oi), -1, 2)
    return Coded(pairs[..., 0] << 4 | pairs[..., 1], scales_k1)


def _decode_nf4(coded: Coded, dtype: torch.dtype) -> Tensor:
    codes_oc = coded.codes
    numbers = torch.stack([codes_oc >> 4, codes_oc & 15], -1).int()
    values = torch.tensor(LEVELS, device=codes_oc.device, dtype=dtype)[numbers]
    # A part of a matrix may have narrower blocks, see `_part_of_nf4`.
    return (values.reshape(len(coded.scales), -1) * coded.scales.to(dtype)).reshape(len(codes_oc), -1)


def _part_of_int8(coded: Coded, share: int, width: int) -> Coded:
    return coded  # a scale is a row's


def _part_of_nf4(coded: Coded, share: int, width: int) -> Coded:
    rows, own = len(coded.codes), 2 * coded.codes.shape[1]
    # So wide that none of them reaches over the end of a row, of a part or of a block of the whole.
    block = math.gcd(BLOCK, width, own)
    device = coded.scales.device
    rows_o1 = torch.arange(rows, device=device)[:, None] * width
    first_k = (rows_o1 + torch.arange(share * own, (share + 1) * own, block, device=device)).flatten()
    return Coded(coded.codes, coded.scales[first_k // BLOCK])


class Bits(NamedTuple):
    """A way to keep a matrix in few bits: how, and what its codes are."""

    encode: Callable[[Tensor], Coded]
    decode: Callable[[Coded, torch.dtype], Tensor]
    # The codes of some columns, the `share`-th as many of a matrix `width` wide, with all its scales: with their own.
    part: Callable[[Coded, int, int], Coded]
    dtype: torch.dtype
    per_code: int  # values in a code

    def check(self, name: str, weight_oi: Tensor) -> None:
        """Raise ConfigError where a matrix can't be cut into blocks."""
        if self.per_code > 1 and (weight_oi.numel() % BLOCK or weight_oi.shape[1] % self.per_code):
            raise ConfigError(
                f"adapter.quantize=nf4: {name} is {tuple(weight_oi.shape)}, which is no multiple of {BLOCK} values: take adapter.quantize=int8."
            )


KINDS = {
    # A row's largest value becomes 127.
    "int8": Bits(_encode_int8, _decode_int8, _part_of_int8, torch.int8, 1),
    # A block's largest value becomes 1 (QLoRA, arXiv 2305.14314; its scales are kept whole).
    "nf4": Bits(_encode_nf4, _decode_nf4, _part_of_nf4, torch.uint8, 2),
}


class Frozen(nn.Linear):
    """A linear layer whose matrix is kept as it is, or in few bits as `bits` names; its bias keeps name and value."""

    codes: Tensor
    scales: Tensor

    def __init__(self, base: nn.Linear, bits: str | None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits = base.in_features, base.out_features, bits
        self.bias = base.bias
        if bits is None:
            self.weight = base.weight
        else:
            # Without values where the layer has none: shapes and dtypes are what counts.
            for name, tensor in KINDS[bits].encode(base.weight.detach())._asdict().items():
                setattr(self, name, nn.Parameter(tensor, requires_grad=False))
        self.train(base.training)

    def coded(self) -> Coded:
        """The matrix in few bits."""
        return Coded(self.codes, self.scales)

    def matrix(self) -> Tensor:
        """The matrix (o, i), in the dtype of its scales where it is made of codes."""
        if self.bits is None:
            return self.weight
        return KINDS[self.bits].decode(self.coded(), self.scales.dtype)

    def product(self, x: Tensor, bias_o: Tensor | None = None) -> Tensor:
        """The product with the matrix, and a bias."""
        if self.bits is None:
            return F.linear(x, self.weight, bias_o)
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        product: Tensor = _Product.apply(x.to(dtype), *self.coded(), self.bits)
        return product if bias_o is None else product + bias_o.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension."""
        return self.product(x, self.bias)


class _Product(torch.autograd.Function):
    """The product with a matrix in few bits, made for it and again for the gradient, and kept in between by its codes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, bits: str) -> Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.bits = bits
        return F.linear(x, KINDS[bits].decode(Coded(codes, scales), x.dtype))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None, None, None]:
        return grad_y @ KINDS[ctx.bits].decode(Coded(*ctx.saved_tensors), grad_y.dtype), None, None, None


def decoded(tensors: dict[str, Tensor], bits: str | None) -> dict[str, Tensor]:
    """Weights by name, those in few bits as the numbers that they stand for, in float32."""
    if bits is None:
        return tensors
    made = {
        name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in (CODES, SCALES)
    }
    for name, codes in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == CODES:
            coded = Coded(codes, tensors[f"{layer}.{SCALES}"].float())
            made[f"{layer}.weight"] = KINDS[bits].decode(coded, torch.float32)
    return made


def n_values(name: str, tensor: Tensor) -> int:
    """How many weights a tensor of that name stands for."""
    leaf = name.rpartition(".")[2]
    if leaf == SCALES:
        return 0
    packed = leaf == CODES and tensor.dtype == KINDS["nf4"].dtype
    return tensor.numel() * (KINDS["nf4"].per_code if packed else 1)


def frozen_bytes(net: nn.Module) -> tuple[int, int]:
    """The bytes of the matrices that `net` keeps in few bits, their scales among them, and what float32 would take."""
    coded = [layer for layer in net.modules() if isinstance(layer, Frozen) and layer.bits is not None]
    taken = sum(t.numel() * t.element_size() for layer in coded for t in (layer.codes, layer.scales))
    return taken, sum(4 * layer.in_features * layer.out_features for layer in coded)
