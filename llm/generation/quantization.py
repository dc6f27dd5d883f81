"""Weights of eight bits for inference on CPUs: a quarter of what each step reads, and products of whole numbers."""

# Shape legend: i inputs, o outputs.

import warnings

import torch
from torch import Tensor, nn

from llm.errors import ConfigError
from llm.generation.packing import Packer
from llm.model import Transformer
from llm.model.layers import FeedForward, GatedFeedForward

# On CPUs without VNNI, sums of two products can overflow 16 bits unless inputs leave out a bit.
REDUCE_RANGE = not torch.cpu._is_vnni_supported()
LARGEST = 63 if REDUCE_RANGE else 127  # what the largest input of a row becomes
# Other backends (on ARM) know inputs alone that are scaled over all rows.
SCALES_ROWS = torch.backends.quantized.engine in ("x86", "fbgemm")


def quantize(model: Transformer) -> Transformer:
    """Give every matrix of `model` whole numbers for weights, in place, and return it.

    Each output has a scale of its own, which maps its largest weight to 127; inputs are scaled as they come, each row by
    itself, so that a text doesn't depend on what is written beside it (on ARM over all rows of a batch). Norms, attention and the lookup of embeddings stay in float32. The model can no longer be trained, saved
    or moved.

    Raises:
        ConfigError: the model isn't on a CPU.
    """
    if any(not weight.is_cpu for weight in model.parameters()):
        raise ConfigError("precision=int8: this is for CPUs; use bf16-true here.")
    with torch.no_grad():
        _Quantizer(model.float().embedding.tokens.weight, transposes=False).pack_within(model)
    return model


class _Quantizer(Packer):
    """Replaces the layers of one model by those of eight bits."""

    def linear(self, weight_oi: Tensor, bias_o: Tensor | None) -> nn.Module:
        """Return the layer of eight bits for these weights."""
        return _Int8Linear(weight_oi, bias_o)

    def fuse_activation(self, feed_forward: FeedForward | GatedFeedForward) -> None:
        """Leave the activation as it is: the product of whole numbers takes none in."""


class _Int8Linear(nn.Module):
    """What `nn.Linear` computes, by weights of eight bits."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor | None) -> None:
        super().__init__()
        scale_o = weight_oi.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        zero_o = torch.zeros(len(scale_o), dtype=torch.long)
        with warnings.catch_warnings():
            # torch wants these tensors to go, but has nothing else yet that its fastest kernel takes.
            warnings.simplefilter("ignore", UserWarning)
            whole_oi = torch.quantize_per_channel(weight_oi.detach(), scale_o, zero_o, 0, torch.qint8)
        self._bias_o = None if bias_o is None else bias_o.detach()
        self._packed = torch.ops.quantized.linear_prepack(whole_oi, None if SCALES_ROWS else self._bias_o)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension of `x` (..., i) to (..., o)."""
        if not SCALES_ROWS:
            product: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, REDUCE_RANGE)
            return product
        largest = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / largest, 1 / LARGEST, LARGEST + 1, self._packed
        )
        product *= largest
        return product if self._bias_o is None else product.add_(self._bias_o)
