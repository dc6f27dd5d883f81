"""Weights laid out for inference: on CPUs in the order that matrix products of few rows read fastest.

Shapes: b batch, t time, i inputs, o outputs, d width, v vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.adapter import Changes, Switched
from llm.model import Transformer
from llm.model.attention import Attention, CrossAttention
from llm.model.block import Block, Residual
from llm.model.heads import Unembedding, soft_capped
from llm.model.layers import FeedForward, GatedFeedForward, gelu_tanh

# What oneDNN applies to a product before it writes it: its names of a function, and of its variant.
FUSED = {F.gelu: ("gelu", "none"), gelu_tanh: ("gelu", "tanh"), F.relu: ("relu", ""), F.silu: ("swish", "")}
PLAIN = ("none", "")


def pack(model: Transformer, rows: int) -> Transformer:
    """Lay out every matrix of `model` for inference on batches of `rows`, in place, and return it.

    The model then decodes faster: one position reads each weight once, so that the order in memory decides. Other
    batches work too, at another speed. What follows a product at once becomes part of it, and so do the keys and values
    beside the queries. The model can no longer be trained, saved or moved. Off CPUs, and where oneDNN lacks the weights'
    type, nothing changes.
    """
    if any(not weight.is_cpu or not _is_packable(weight.dtype) for weight in model.parameters()):
        return model
    tied_vd = model.embedding.tokens.weight
    with torch.no_grad():
        Packer(tied_vd, transposes=rows == 1 and tied_vd.dtype is torch.float32).pack(model)
    return model.eval()


def _is_packable(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and works in `dtype`; older CPUs have no bfloat16 for it."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


class Packer:
    """Replaces the layers of one model."""

    def __init__(self, tied_vd: Tensor, transposes: bool) -> None:
        self._tied_vd = tied_vd
        self._transposes = transposes

    def pack(self, model: Transformer) -> None:
        """Replace the layers of `model`, and call what is left without detours."""
        self.pack_within(model)
        for module in model.modules():
            if isinstance(module, Block | Residual | Attention | FeedForward | GatedFeedForward):
                _call_straight(module)

    def pack_within(self, module: nn.Module) -> None:
        """Replace what `module` has below it."""
        for name, child in module.named_children():
            if isinstance(child, FeedForward | GatedFeedForward):
                self.fuse_activation(child)
            packed = self.packed(child)
            setattr(module, name, packed)
            # Packed attention has its output below it, which is as it was.
            if packed is child or isinstance(packed, PackedAttention):
                self.pack_within(packed)

    def packed(self, layer: nn.Module) -> nn.Module:
        """What computes the same as `layer` faster; `layer` itself where nothing does."""
        match layer:
            case Attention() if not isinstance(layer, CrossAttention):
                return PackedAttention(layer, self.linear)
            case Switched():  # which is a linear layer too
                return _Changed(self.linear(layer.weight, layer.bias), layer.changes)
            case nn.Linear():
                return self.linear(layer.weight, layer.bias)
            case nn.Dropout():
                return nn.Identity()  # a third of the time of a call that drops nothing
            case Unembedding():
                rows_vd = self._tied_vd if layer.weight is None else layer.weight
                return _PackedUnembedding(layer, self.linear(rows_vd, layer.bias))
        return layer

    def linear(self, weight_oi: Tensor, bias_o: Tensor | None) -> nn.Module:
        """Return the layer that reads this weight fastest."""
        if self._is_transposed(weight_oi):
            return _TransposedLinear(weight_oi, bias_o)
        return _PackedLinear(weight_oi, bias_o)

    def _is_transposed(self, weight_oi: Tensor) -> bool:
        # One row of 768 by 2,304, 3,072 and 50,257 outputs takes MKL 0.40, 0.47 and 8.8 ms, oneDNN 0.53, 0.68 and 10.1;
        # with as many inputs or more, both take the same, and of several rows oneDNN is up to twice as fast.
        outputs, inputs = weight_oi.shape
        return self._transposes and outputs > inputs

    def fuse_activation(self, feed_forward: FeedForward | GatedFeedForward) -> None:
        """Let the product apply the activation, where it can."""
        name = "gate" if isinstance(feed_forward, GatedFeedForward) else "up"
        linear = feed_forward.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        if isinstance(linear, Switched):
            return  # adapters change the product before the activation
        if feed_forward.activate in FUSED and not self._is_transposed(linear.weight):
            setattr(
                feed_forward, name, _PackedLinear(linear.weight, linear.bias, FUSED[feed_forward.activate])
            )
            feed_forward.activate = nn.Identity()


def _call_straight(module: nn.Module) -> None:
    """Let `module` call what it has below it as plain functions."""
    # torch looks for a submodule in three dictionaries and then for hooks around its call: of a step that writes a token
    # with a small model that is a tenth.
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleDict):
            vars(module)[name] = {key: each.forward for key, each in child.items()}
        elif not isinstance(child, nn.ModuleList | CrossAttention):
            vars(module)[name] = child.forward


class _TransposedLinear(nn.Module):
    """What `nn.Linear` computes, with the inputs of all outputs side by side."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor | None) -> None:
        super().__init__()
        self._weight_io = weight_oi.detach().t().contiguous()
        self.bias = bias_o

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension of `x` (..., i) to (..., o)."""
        return F.linear(x, self._weight_io.t(), self.bias)


class _PackedLinear(nn.Module):
    """What `nn.Linear` and a function after it compute, with a weight that is no parameter."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor | None, activation: tuple[str, str] = PLAIN) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_oi)
        self._function, self._variant = activation
        self.bias = bias_o

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension of `x` (..., i) to (..., o)."""
        return torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, self._function, [], self._variant
        )


class _Changed(nn.Module):
    """A layer with adapters beside it."""

    def __init__(self, base: nn.Module, changes: Changes) -> None:
        super().__init__()
        self._base, self._changes = base, changes

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension of `x` (..., i) to (..., o)."""
        changed: Tensor = self._changes(x, self._base(x))
        return changed


class PackedAttention(Attention):
    """Attention whose queries, keys and values come from one product."""

    def __init__(self, attention: Attention, linear: Callable[[Tensor, Tensor | None], nn.Module]) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({key: value for key, value in vars(attention).items() if key[0] != "_"})
        parts = (attention.query, attention.key, attention.value)
        weight = torch.cat([part.weight for part in parts])
        bias = torch.cat([part.bias for part in parts]) if attention.query.bias is not None else None
        self._counts = [part.out_features // attention.head_size for part in parts]
        changes = [part.changes if isinstance(part, Switched) else Changes() for part in parts]
        self._changes = nn.ModuleList(changes if any(isinstance(part, Switched) for part in parts) else [])
        self._projection = linear(weight, bias)
        self.output = attention.output
        self.query_norm, self.key_norm = attention.query_norm, attention.key_norm

    def project(self, x_btd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (b, t, h, e)."""
        query_bthe, key_bthe, value_bthe = self.heads(self._projection(x_btd)).split_with_sizes(
            self._counts, -2
        )
        if not self._changes:
            return query_bthe, key_bthe, value_bthe
        of_query, of_key, of_value = self._changes
        return (
            self.heads(of_query(x_btd, query_bthe.flatten(2))),
            self.heads(of_key(x_btd, key_bthe.flatten(2))),
            self.heads(of_value(x_btd, value_bthe.flatten(2))),
        )


class _PackedUnembedding(nn.Module):
    """What `Unembedding` computes."""

    def __init__(self, unembedding: Unembedding, score: nn.Module) -> None:
        super().__init__()
        self._unembedding = unembedding
        self._score = score

    def forward(self, hidden_btd: Tensor, tied_vd: Tensor) -> Tensor:
        """Return logits (b, t, v); the rows that are tied have been packed."""
        return soft_capped(self._score(self._unembedding.prepare(hidden_btd)), self._unembedding.soft_cap)
