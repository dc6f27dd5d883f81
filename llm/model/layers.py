"""The parts that work on one position at a time: norms, activations and feed-forward networks.

Shapes: b batch, t time, d width, f inner width of the feed-forward.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.model.config import GATED, ModelConfig


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale; statistics over the last dimension (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x` (..., size), of the same dtype."""
        # torch has a kernel for accelerators, and its compiler makes one anywhere; on a CPU without it, autograd's
        # composition takes four times as long as the formula below.
        if x.is_cpu and not torch.compiler.is_compiling():
            if not torch.is_grad_enabled():
                return _normalise(x, self.weight, self.eps)[0]
            return _RMSNorm.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class _RMSNorm(torch.autograd.Function):
    """RMSNorm with its gradient by hand, with few passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normalised, scale = _normalise(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return normalised

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        product = grad * x.to(weight.dtype)
        along = (product @ weight).unsqueeze(-1) * scale.pow(3) / -x.shape[-1]
        grad_x = (grad * weight).mul_(scale).addcmul_(x, along)
        return grad_x.to(x.dtype), scale.flatten() @ product.flatten(0, -2), None


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the normalised `x` and what it was multiplied with."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=weight.dtype)
    scale = torch.rsqrt(norm.square() / x.shape[-1] + eps)
    return (x * scale).mul_(weight).to(x.dtype), scale


def build_norm(config: ModelConfig, size: int) -> nn.Module:
    """Return the configured norm over a last dimension of `size`."""
    if config.norm == "rms":
        return RMSNorm(size, config.norm_eps)
    return nn.LayerNorm(size, config.norm_eps, bias=config.norm_bias)


def cast_once(x: Tensor) -> Tensor:
    """Return `x` as autocast would hand it to a matrix product, so that several products share one cast."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0) squared, the activation of Primer (arXiv 2109.08668)."""
    return F.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation, GPT-2's (arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "relu2": squared_relu,
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": gelu_tanh,
}


class FeedForward(nn.Module):
    """Widen, activate, narrow."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.d_model, config.ff_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.ff_size, config.d_model, bias=config.mlp_bias)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Map each position by itself; the shape stays."""
        return self.down(self.activate(self.up(x_btd)))


class GatedFeedForward(nn.Module):
    """Widen twice, let one activated half gate the other, narrow (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[config.activation]
        self.gate = nn.Linear(config.d_model, config.ff_size, bias=config.mlp_bias)
        self.up = nn.Linear(config.d_model, config.ff_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.ff_size, config.d_model, bias=config.mlp_bias)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Map each position by itself; the shape stays."""
        x_btd = cast_once(x_btd)
        return self.down(self.activate(self.gate(x_btd)) * self.up(x_btd))


def build_feed_forward(config: ModelConfig) -> nn.Module:
    """Return the feed-forward network of the configured activation."""
    return GatedFeedForward(config) if config.activation in GATED else FeedForward(config)
