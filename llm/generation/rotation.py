"""Inputs rotated by a Hadamard matrix, so that none is far above the others where products are in few bits (arXiv 2404.00456).

Inputs and weights that are rotated alike have the products that they had. But where one input is far above the others, as
some of a trained model's are, it is spread over its block, so that the scale of the row loses less of the rest.

Shapes: i inputs, o outputs, d width, e width of a head.
"""

import functools
import math

import torch
from torch import Tensor, nn

from llm.model import Transformer
from llm.model.block import Block
from llm.model.layers import FeedForward, GatedFeedForward

BLOCK = 64  # inputs that are rotated together, at most
# Of 768 such blocks MKL's product takes 82 us, oneDNN's 36; of 96, 9 and 14. Both add up in one order, to the same bits.
MANY_BLOCKS = 384


class Rotation(nn.Module):
    """Multiplies blocks of the last dimension by a symmetric orthogonal matrix, so that a second rotation undoes the first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.block = _block(size)
        self._matrix = _hadamard(self.block)
        self._packed = None
        if self.block == BLOCK and torch.backends.mkldnn.is_available():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._matrix)

    @property
    def keeps_mean(self) -> bool:
        """Whether what is alike stays as it is, so that to take off the mean is the same before and after."""
        return math.isqrt(self.block) ** 2 == self.block

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (..., size) rotated."""
        blocks = x.reshape(-1, self.block)
        if self._packed is None or blocks.shape[0] < MANY_BLOCKS:
            return torch.mm(blocks, self._matrix).view_as(x)
        rotated: Tensor = torch.ops.mkldnn._linear_pointwise(blocks, self._packed, None, "none", [], "")
        return rotated.view_as(x)


def _block(size: int) -> int:
    # At fewer than eight blocks a row MKL adds up one row's in another order than those of several.
    block = math.gcd(size, BLOCK)
    while block > 1 and size < 8 * block:
        block //= 2
    return block


@functools.cache
def _hadamard(size: int) -> Tensor:
    """The symmetric orthogonal matrix whose entries are all of one magnitude; `size` is a power of two.

    Where it is a power of four, each row adds up to 1.
    """
    if size == 1:
        return torch.ones(1, 1, device="cpu")
    if size % 4:
        return torch.tensor([[1.0, 1.0], [1.0, -1.0]], device="cpu") / math.sqrt(2)
    return torch.kron(0.5 - torch.eye(4, device="cpu"), _hadamard(size // 4)).contiguous()


class RotatedLinear(nn.Linear):
    """A linear layer whose inputs come rotated, and whose matrix is."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor | None) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight_oi.shape
        self.weight = nn.Parameter(weight_oi)
        self.register_parameter("bias", None if bias_o is None else nn.Parameter(bias_o))


@torch.no_grad()
def rotate_stream(model: Transformer) -> None:
    """Let the blocks of `model` work on a rotated residual stream, in place; what it computes stays.

    The stream is rotated once before them and once after, where otherwise each layer rotates what it reads. What norms
    scale and add goes into the layers after them, and heads' values come rotated by weights alone. Nothing changes where
    the stream itself is what a norm has scaled (post-norm), beside a second stack or adapters, where a head ends within
    a block, and where a rotation would change the mean that a norm takes off.
    """
    rotation = Rotation(model.config.d_model)
    blocks = [
        block for block in model.stack.blocks if isinstance(block, Block) and _is_rotatable(block, rotation)
    ]
    if model.reads_source or len(blocks) < len(model.stack.blocks):
        return
    for block in blocks:
        _rotate_block(block, rotation)
    model.embedding.dropout = nn.Sequential(model.embedding.dropout, rotation)
    model.stack.norm = nn.Sequential(rotation, model.stack.norm)


def _is_rotatable(block: Block, rotation: Rotation) -> bool:
    attention, norms = block.attention, block.residual.norms.values()
    return (
        block.residual.placing != "post"
        and block.cross_attention is None
        and all(type(layer) is nn.Linear for layer in block.modules() if isinstance(layer, nn.Linear))
        and attention.head_size % _block(attention.output.in_features) == 0
        and (rotation.keeps_mean or not any(isinstance(norm, nn.LayerNorm) for norm in norms))
    )


def _rotate_block(block: Block, rotation: Rotation) -> None:
    attention, feed_forward = block.attention, block.feed_forward
    assert isinstance(feed_forward, FeedForward | GatedFeedForward)
    norm_of = block.residual.norms
    for parent, names, norm in (
        (attention, ("query", "key", "value"), norm_of["attention"]),
        (feed_forward, ("gate", "up"), norm_of["feed_forward"]),
    ):
        for name in names:
            if hasattr(parent, name):
                setattr(parent, name, _reading(getattr(parent, name), norm, rotation))
        _forget(norm)
    of_heads = Rotation(attention.output.in_features)
    _rotate_outputs(attention.value, of_heads)
    _rotate_outputs(attention.output, rotation)
    attention.output = RotatedLinear(of_heads(attention.output.weight), attention.output.bias)
    _rotate_outputs(feed_forward.down, rotation)


def _reading(linear: nn.Linear, norm: nn.Module, rotation: Rotation) -> RotatedLinear:
    """Return the layer that makes of a rotated and merely normalised stream what `linear` made after `norm`."""
    weight_oi: Tensor = linear.weight
    bias_o: Tensor | None = linear.bias
    of_norm = dict(norm.named_parameters())
    if "bias" in of_norm:
        added_o = weight_oi @ of_norm["bias"]
        bias_o = added_o if bias_o is None else bias_o + added_o
    if "weight" in of_norm:
        weight_oi = weight_oi * of_norm["weight"]
    return RotatedLinear(rotation(weight_oi), bias_o)


def _forget(norm: nn.Module) -> None:
    """Let a norm scale by 1 and add 0."""
    for name, parameter in norm.named_parameters():
        parameter.fill_(1.0 if name == "weight" else 0.0)


def _rotate_outputs(linear: nn.Linear, rotation: Rotation) -> None:
    linear.weight.copy_(rotation(linear.weight.T).T)
    if linear.bias is not None:
        linear.bias.copy_(rotation(linear.bias))
