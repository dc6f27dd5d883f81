"""Weights laid out for inference: on CPUs in oneDNN's blocked order, which matrix products read up to twice as fast."""

# Shape legend: b batch, t time, i inputs, o outputs, d width, v vocabulary.

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.model import Transformer
from llm.model.attention import Attention, CrossAttention
from llm.model.heads import Unembedding, soft_capped
from llm.model.layers import FeedForward, GatedFeedForward, gelu_tanh

# What oneDNN applies to a product before it writes it: its names of a function, and of its variant.
FUSED = {F.gelu: ("gelu", "none"), gelu_tanh: ("gelu", "tanh"), F.relu: ("relu", ""), F.silu: ("swish", "")}
PLAIN = ("none", "")


def pack(model: Transformer) -> Transformer:
    """Lay out every matrix of `model` for inference, in place, and return it.

    The model then decodes faster: one position reads each weight once, so that the order in memory decides. What
    follows a product at once becomes part of it, and so do the keys and values beside the queries. The model can no
    longer be trained, saved or moved. Off CPUs, and where oneDNN lacks the weights' type, nothing changes.
    """
    if any(not weight.is_cpu or not _is_packable(weight.dtype) for weight in model.parameters()):
        return model
    with torch.no_grad():
        _pack_within(model, model.embedding.tokens.weight)
    return model


def _is_packable(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and works in `dtype`; older CPUs have no bfloat16 for it."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def _pack_within(module: nn.Module, tied_vd: Tensor) -> None:
    for name, child in module.named_children():
        if isinstance(child, Attention) and not isinstance(child, CrossAttention):
            child = _PackedAttention(child)
            setattr(module, name, child)
        elif isinstance(child, FeedForward | GatedFeedForward):
            _fuse_activation(child)
        if isinstance(child, nn.Linear):
            setattr(module, name, _PackedLinear(child.weight, child.bias))
        elif isinstance(child, Unembedding):
            setattr(module, name, _PackedUnembedding(child, tied_vd))
        else:
            _pack_within(child, tied_vd)


def _fuse_activation(feed_forward: FeedForward | GatedFeedForward) -> None:
    """Let the product apply the activation."""
    if feed_forward.activate in FUSED:
        name = "gate" if isinstance(feed_forward, GatedFeedForward) else "up"
        linear = feed_forward.get_submodule(name)
        packed = _PackedLinear(linear.weight, linear.bias, FUSED[feed_forward.activate])  # type: ignore[arg-type]
        setattr(feed_forward, name, packed)
        feed_forward.activate = nn.Identity()


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


class _PackedAttention(Attention):
    """Attention whose queries, keys and values come from one product."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({key: value for key, value in vars(attention).items() if key[0] != "_"})
        parts = (attention.query, attention.key, attention.value)
        weight = torch.cat([part.weight for part in parts])
        bias = torch.cat([part.bias for part in parts]) if attention.query.bias is not None else None
        self._sizes = [part.out_features for part in parts]
        self._projection = _PackedLinear(weight, bias)
        self.output = attention.output
        self.query_norm, self.key_norm = attention.query_norm, attention.key_norm

    def project(self, x_btd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, their heads side by side."""
        query, key, value = self._projection(x_btd).split(self._sizes, dim=-1)
        return query, key, value


class _PackedUnembedding(nn.Module):
    """What `Unembedding` computes."""

    def __init__(self, unembedding: Unembedding, tied_vd: Tensor) -> None:
        super().__init__()
        rows_vd = tied_vd if unembedding.weight is None else unembedding.weight
        self._unembedding = unembedding
        self._score = _PackedLinear(rows_vd, unembedding.bias)

    def forward(self, hidden_btd: Tensor, tied_vd: Tensor) -> Tensor:
        """Return logits (b, t, v); the rows that are tied have been packed."""
        return soft_capped(self._score(self._unembedding.prepare(hidden_btd)), self._unembedding.soft_cap)
