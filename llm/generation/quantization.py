"""Weights of eight bits for inference on CPUs: a quarter of what each step reads, and products of whole numbers.

Shapes: i inputs, o outputs.
"""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from llm.errors import ConfigError
from llm.generation.packing import PackedAttention, Packer
from llm.generation.rotation import RotatedLinear, Rotation, rotate_stream
from llm.model import Transformer
from llm.model.attention import Attention
from llm.model.layers import FeedForward, GatedFeedForward, gelu_tanh

# On CPUs without VNNI, sums of two products can overflow 16 bits unless inputs leave out a bit.
REDUCE_RANGE = not torch.cpu._is_vnni_supported()
# With tiles (Intel's AMX) oneDNN takes other instructions for less than 257 values, and the last bit is another.
FEWEST_OUTPUTS = 320
HAS_TILES = torch.cpu._is_amx_tile_supported()
LARGEST = 63 if REDUCE_RANGE else 127  # what the largest input of a row becomes
# To rotate the stream once spares each layer's own rotation, 7% of a step of eight rows, and costs some precision, since what
# norms scale down stays as large as it is: of SmolLM2-135M 0.63 hundredths of a nat for 0.49, and 1.42 for 1.05 where inputs
# leave out a bit.
ROTATES_STREAM = not REDUCE_RANGE
# Other backends (on ARM) round inputs by one scale for all rows.
SCALES_ROWS = torch.backends.quantized.engine in ("x86", "fbgemm")


def quantize(model: Transformer, rows: int = 1) -> Transformer:
    """Give every matrix of `model` whole numbers for weights, in place, and return it; the faster kernels for `rows`.

    Inputs and weights are rotated alike first (see llm.generation.rotation). Each output has a scale of its own, which maps its largest
    weight to 127; inputs are scaled as they come, each row by itself, so that a text doesn't depend on what is written
    beside it (on ARM over all rows of a batch). Norms, attention and the lookup of embeddings stay in float32. The model
    can no longer be trained, saved or moved.

    Raises:
        ConfigError: the model isn't on a CPU.
    """
    if any(not weight.is_cpu for weight in model.parameters()):
        raise ConfigError("precision=int8: this is for CPUs; use bf16-true here.")
    with torch.no_grad():
        model.float()
        if ROTATES_STREAM:
            rotate_stream(model)
        _Quantizer(model.embedding.tokens.weight, rows).pack(model)
    return model.eval()


# Each operator asks its arguments for this, which packed weights answer by two exceptions of C++: 29 us of a small
# product's 39. What they have now says the same, that there is none.
torch.ScriptObject.__torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[attr-defined]


class _Fbgemm:
    """Products of inputs from -1 to 1 with whole weights, (..., i) to (..., o), by FBGEMM."""

    # Around `_op` torch looks through the arguments for what only its tracing gives: a tenth of a step of one row.
    _product = staticmethod(torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default._op)

    def __init__(self, whole_oi: Tensor) -> None:
        self._packed = torch.ops.quantized.linear_prepack(whole_oi, None)

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = self._product(x, 1 / LARGEST, LARGEST + 1, self._packed)
        return product


class _OneDnn:
    """The same by oneDNN."""

    def __init__(self, whole_oi: Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(whole_oi.int_repr(), None)
        self._scale_o = whole_oi.q_per_channel_scales().float()
        self._zero_o = whole_oi.q_per_channel_zero_points()

    def __call__(self, x: Tensor) -> Tensor:
        whole = torch.quantize_per_tensor(x, 1 / LARGEST, LARGEST + 1, torch.quint8).int_repr()
        plain: tuple[object, ...] = (
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )  # no bias, no function after it
        product: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            whole, 1 / LARGEST, LARGEST + 1, self._packed, self._scale_o, self._zero_o, *plain
        )
        return product


class _Dynamic:
    """The same by torch's own product of whole numbers, which scales all rows alike."""

    def __init__(self, whole_oi: Tensor) -> None:
        self._packed = torch.ops.quantized.linear_prepack(whole_oi, None)

    def __call__(self, x: Tensor) -> Tensor:
        # A row that isn't a number would take the others with it.
        product: Tensor = torch.ops.quantized.linear_dynamic(x.nan_to_num(0.0), self._packed, REDUCE_RANGE)
        return product


# What makes the product of a layer's whole weights.
Kernel = Callable[[Tensor], Callable[[Tensor], Tensor]]


class _Int8Linear(nn.Module):
    """What `nn.Linear` computes, by weights of eight bits."""

    def __init__(
        self, weight_oi: Tensor, bias_o: Tensor | None, kernel: Kernel, comes_rotated: bool = False
    ) -> None:
        super().__init__()
        weight_oi = weight_oi.detach()
        self._rotate = None
        if not comes_rotated:
            self._rotate = Rotation(weight_oi.shape[1]).forward
            weight_oi = self._rotate(weight_oi)
        scale_o = weight_oi.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        zero_o = torch.zeros(len(scale_o), dtype=torch.long)
        with warnings.catch_warnings():
            # torch wants these tensors to go, but has nothing else yet that its fastest kernel takes.
            warnings.simplefilter("ignore", UserWarning)
            whole_oi = torch.quantize_per_channel(weight_oi, scale_o, zero_o, 0, torch.qint8)
        self._multiply = kernel(whole_oi)
        self._bias_o = None if bias_o is None else bias_o.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension of `x` (..., i) to (..., o)."""
        if self._rotate is not None:
            x = self._rotate(x)
        largest = x.abs().amax(-1, True)
        # Of a row of zeros whatever whole numbers 0 / 0 becomes are multiplied by 0.
        product = self._multiply(x / largest)
        if self._bias_o is None:
            return product.mul_(largest)
        return torch.addcmul(self._bias_o, product, largest)


def _gelu_tanh(x: Tensor) -> Tensor:
    """What `gelu_tanh` computes, by the logistic function: (1 + tanh z) / 2 = 1 / (1 + exp(-2 z))."""
    # torch's kernel takes 30 us of 8 rows of 3,072 and 139 of 16; this takes 14 and 24.
    cubic = torch.addcmul(x, x * x, x, value=0.044715)
    return cubic.mul_(2 * math.sqrt(2 / math.pi)).sigmoid_().mul_(x)


class _Quantizer(Packer):
    """Replaces the layers of one model by those of eight bits."""

    def __init__(self, tied_vd: Tensor, rows: int) -> None:
        super().__init__(tied_vd, transposes=False)
        self._rows = rows

    def packed(self, layer: nn.Module) -> nn.Module:
        """Return the layer of eight bits for `layer`, or `layer` itself."""
        match layer:
            case Attention() if isinstance(layer.query, RotatedLinear):
                return PackedAttention(layer, self.rotated_linear)
            case RotatedLinear():
                return self.rotated_linear(layer.weight, layer.bias)
        return super().packed(layer)

    def linear(self, weight_oi: Tensor, bias_o: Tensor | None) -> nn.Module:
        """Return the layer of eight bits for these weights."""
        return _Int8Linear(weight_oi, bias_o, self._kernel(*weight_oi.shape))

    def rotated_linear(self, weight_oi: Tensor, bias_o: Tensor | None) -> nn.Module:
        """Return the same where inputs and weights are rotated already."""
        return _Int8Linear(weight_oi, bias_o, self._kernel(*weight_oi.shape), comes_rotated=True)

    def _kernel(self, outputs: int, inputs: int) -> Kernel:
        # 768 inputs and 2,304 outputs take FBGEMM 83 us for one row and 182 for 16, oneDNN 91 and 153; 12,000 outputs
        # 306 and 849, 294 and 616; 3,072 inputs and 768 outputs 188 and 194 for 16. With tiles oneDNN takes hardly longer
        # for 16 rows than for one: 191 us and 204 of 768 by 2,304, where FBGEMM takes 158 and 286. What a layer takes
        # mustn't depend on the rows that come, since the two round the last bit differently.
        if not SCALES_ROWS:
            return _Dynamic
        if REDUCE_RANGE or not torch.backends.mkldnn.is_available() or outputs < FEWEST_OUTPUTS:
            return _Fbgemm
        is_wide = outputs > 8 * inputs or (outputs > inputs and self._rows >= 16)
        return _OneDnn if is_wide or (HAS_TILES and self._rows > 1) else _Fbgemm

    def fuse_activation(self, feed_forward: FeedForward | GatedFeedForward) -> None:
        """Leave the activation after its product, which takes none in, but compute GPT-2's faster."""
        if feed_forward.activate is gelu_tanh:
            feed_forward.activate = _gelu_tanh
