"""Tensor parallelism, from outside the model: each process has some heads, inner widths and rows of the vocabulary.

Between attention and feed-forward, where norms and dropout work on each position by itself, each process has some
positions instead (Megatron: arXiv 1909.08053, 2205.05198). Weights are DTensors; the model itself computes on plain
tensors, this process's part of each.

Shapes: b batch, t time, d width, v vocabulary, o outputs, i inputs of a layer.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

from llm.adapter import KINDS, Coded, Decomposed, Frozen
from llm.errors import ConfigError
from llm.model import ModelConfig, Transformer
from llm.model.attention import Attention, CrossAttention
from llm.model.block import Stack
from llm.model.layers import FeedForward, GatedFeedForward

Layout = tuple[re.Pattern[str], Placement, Placement]

WHOLE, SUMMED, BY_TIME, BY_LAST = Replicate(), Partial(), Shard(1), Shard(-1)


def _layout(pattern: str, stored: Placement, gradient: Placement) -> Layout:
    return re.compile(rf"(.*\.)?{pattern}"), stored, gradient


# How a parameter is stored, and what each process's own gradient of it is; the first that fits its name.
LAYOUTS = (
    # What a process makes by its own rows of B goes back into the whole of A.
    _layout(r"(query|key|value|gate|up)\.lora_a", WHOLE, SUMMED),
    _layout(r"(cross_)?attention\.(query|key|value)\.\w+", Shard(0), Shard(0)),
    _layout(r"(cross_)?attention\.output\.(weight|codes|lora_a)", Shard(1), Shard(1)),
    _layout(r"feed_forward\.(gate|up)\.\w+", Shard(0), Shard(0)),
    _layout(r"feed_forward\.down\.(weight|codes|lora_a)", Shard(1), Shard(1)),
    _layout(r"relative_position\.weight", Shard(1), Shard(1)),
    _layout(r"embedding\.tokens\.weight", Shard(0), Shard(0)),
    _layout(r"unembedding\.(weight|bias)", Shard(0), Shard(0)),
    # Every process embeds all positions alike, and tells their labels alike.
    _layout(r"(embedding|pooler|label_head)\..*", WHOLE, WHOLE),
    # Norms see a process's own positions or heads, what stands before the head its own rows' share, and the adapter of a
    # sum its own part of that.
    _layout(r".*", WHOLE, SUMMED),
)


def check_divides(config: ModelConfig, size: int, bits: str | None = None) -> None:
    """Refuse a number of processes that can't share the model evenly.

    Args:
        config: the model's.
        size: how many processes share each matrix product.
        bits: in which few bits frozen matrices are kept, if any.

    Raises:
        ConfigError: it doesn't divide the heads or what else is split, or cuts through what has a scale.
    """
    parts = {
        "n_heads": config.n_heads,
        "n_kv_heads": config.kv_heads,
        "d_ff": config.ff_size,
    }
    for key, value in parts.items():
        if value % size:
            raise ConfigError(
                f"tensor parallelism over {size} processes doesn't divide model.{key}={value}: choose another "
                f"trainer.strategy.tensor_parallel_size or model.{key}."
            )
        if bits is not None:
            width = value if key == "d_ff" else value * config.head_size
            part = torch.empty(config.d_model, width // size, device="meta")
            KINDS[bits].check(f"the part that each of {size} processes has along model.{key}", part)


def split_tensors(net: Transformer, mesh: DeviceMesh) -> None:
    """Split the model, in place, over a mesh of one dimension; it may be without storage.

    Raises:
        ConfigError: see `check_divides`.
    """
    check_divides(net.config, mesh.size())
    for prefix, module in list(net.named_modules()):
        gradients = {name: _store(module, name, f"{prefix}.{name}", mesh) for name in _own(module)}
        if gradients or module is net.unembedding:
            module.forward = _on_own_part(module, module.forward, gradients, mesh)
    for stack in (net.encoder, net.stack):
        if stack is not None:
            _split_stack(stack, mesh, told_alike=stack is net.stack and net.label_head is not None)
    _split_ends(net, mesh)


def _own(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters(recurse=False)]


def _store(module: nn.Module, name: str, full_name: str, mesh: DeviceMesh) -> Placement:
    """Make a parameter a DTensor; returns the placement of its gradient."""
    stored, gradient = next(rest for pattern, *rest in LAYOUTS if pattern.fullmatch(full_name))
    own = getattr(module, name)
    value = distribute_tensor(own.detach(), mesh, [stored])
    module.register_parameter(name, nn.Parameter(value, requires_grad=own.requires_grad))
    return gradient


def _on_own_part(
    module: nn.Module, forward: Callable[..., Tensor], gradients: dict[str, Placement], mesh: DeviceMesh
) -> Callable[..., Tensor]:
    """A module's `forward` on this process's part of its parameters, and of the tied rows that it is given."""

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        held = {name: module._parameters[name] for name in gradients}
        for name, gradient in gradients.items():
            own = held[name].to_local(grad_placements=[gradient])  # type: ignore[union-attr]
            # A bias behind what is summed over processes is added by each of them.
            shared = name == "bias" and getattr(module, "is_summed", False)
            module._parameters[name] = own / mesh.size() if shared else own
        try:
            return forward(*(a.to_local() if isinstance(a, DTensor) else a for a in args), **kwargs)
        finally:
            module._parameters.update(held)

    return run


class _Stream:
    """A stack's states between its sublayers: each process has its own positions of them.

    Where positions don't divide, as in writing one token, zeros follow them.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh
        self.length = 0

    def enter(self, x_btd: Tensor) -> Tensor:
        """Keep this process's positions of what all have."""
        self.length = x_btd.shape[1]
        return move(self._padded(x_btd), self.mesh, WHOLE, BY_TIME)

    def gather(self, x_btd: Tensor) -> Tensor:
        """All positions, for what each process computes a part of."""
        return move(x_btd, self.mesh, BY_TIME, WHOLE, gradient=SUMMED)[:, : self.length]

    def add_up(self, x_btd: Tensor) -> Tensor:
        """This process's positions of the sum of all parts."""
        return move(self._padded(x_btd), self.mesh, SUMMED, BY_TIME)

    def leave(self, x_btd: Tensor) -> Tensor:
        """All positions, for what every process computes alike."""
        return move(x_btd, self.mesh, BY_TIME, WHOLE)[:, : self.length]

    def _padded(self, x_btd: Tensor) -> Tensor:
        return F.pad(x_btd, (0, 0, 0, -x_btd.shape[1] % self.mesh.size()))


def _split_stack(stack: Stack, mesh: DeviceMesh, *, told_alike: bool) -> None:
    """Split a stack; `told_alike` is whether every process computes the same of all that it gives."""
    stream = _Stream(mesh)
    stack.blocks[0].register_forward_pre_hook(_on_first(stream.enter))
    for name, module in stack.named_modules():
        if name.endswith(("attention.output", "feed_forward.down")):
            module.is_summed = True
            module.register_forward_hook(_on_result(stream.add_up))
            _split_columns(module, mesh)
        elif isinstance(module, CrossAttention):
            module.attend = _attending(module.attend, stream)  # type: ignore[method-assign]
        elif isinstance(module, Attention | FeedForward | GatedFeedForward):
            module.register_forward_pre_hook(_on_first(stream.gather))
    stack.norm.register_forward_hook(_on_result(stream.leave if told_alike else stream.gather))


def _split_columns(layer: nn.Module, mesh: DeviceMesh) -> None:
    """Let a frozen layer whose columns are split use its own scales, and the lengths of whole rows."""
    if isinstance(layer, Frozen) and layer.bits is not None:
        layer.coded = _of_own_columns(layer, mesh.get_local_rank())  # type: ignore[method-assign]
    if isinstance(layer, Decomposed):
        layer.lengths = _over_all_columns(layer.lengths, mesh)  # type: ignore[method-assign, assignment]


def _of_own_columns(layer: Frozen, share: int) -> Callable[[], Coded]:
    coded, part, width = layer.coded, KINDS[layer.bits or ""].part, layer.in_features
    return lambda: part(coded(), share, width)


def _over_all_columns(lengths: Callable[[Tensor], Tensor], mesh: DeviceMesh) -> Callable[[Tensor], Tensor]:
    return lambda matrix_oi: move(lengths(matrix_oi).square(), mesh, SUMMED, WHOLE).sqrt()


def _attending(attend: Callable[..., Tensor], stream: _Stream) -> Callable[..., Tensor]:
    return lambda x_btd, **source: attend(stream.gather(x_btd), **source)


def _split_ends(net: Transformer, mesh: DeviceMesh) -> None:
    tokens = net.embedding.tokens
    tokens.forward = _of_own_rows(tokens, mesh)  # type: ignore[method-assign, assignment]
    tokens.register_forward_hook(_on_result(lambda x_btd: move(x_btd, mesh, SUMMED, WHOLE)))
    size = net.config.vocabulary
    if net.unembedding is not None:
        net.unembedding.register_forward_hook(_on_result(lambda x_btv: _all_scores(x_btv, mesh, size)))
    if net.config.dropout:
        for end in (net.embedding, net.label_head):
            if end is not None:
                _split_dropout(end.dropout, mesh)


def _split_dropout(dropout: nn.Module, mesh: DeviceMesh) -> None:
    """Let every process draw for its own positions: what all had drawn would differ."""
    stream = _Stream(mesh)
    dropout.register_forward_pre_hook(_on_first(stream.enter))
    dropout.register_forward_hook(_on_result(stream.leave))


def _of_own_rows(tokens: nn.Embedding, mesh: DeviceMesh) -> Callable[[Tensor], Tensor]:
    """An embedding's `forward` where this process has some of the rows: zeros for the tokens of the others."""
    forward, size = tokens.forward, tokens.num_embeddings
    each = -(-size // mesh.size())
    first = min(mesh.get_local_rank() * each, size)
    end = min(first + each, size)

    def run(tokens_bt: Tensor) -> Tensor:
        others_bt = (tokens_bt < first) | (tokens_bt >= end)
        x_btd = forward((tokens_bt - first).masked_fill(others_bt, 0))
        return x_btd.masked_fill(others_bt[..., None], 0.0)

    return run


def _all_scores(x_btv: Tensor, mesh: DeviceMesh, size: int) -> Tensor:
    # The last process may have fewer rows than the others.
    shape = torch.Size((*x_btv.shape[:-1], size))
    stride = torch.empty(shape, device="meta").stride()
    split = DTensor.from_local(x_btv, mesh, [BY_LAST], shape=shape, stride=stride)
    return split.redistribute(placements=[WHOLE]).to_local()


def move(
    x: Tensor, mesh: DeviceMesh, before: Placement, after: Placement, gradient: Placement | None = None
) -> Tensor:
    """Redistribute a tensor of which each process has a part, and its gradient the other way.

    `gradient` is what each process has of the gradient of the result, where that is not laid out as the result is.
    """
    moved = DTensor.from_local(x, mesh, [before]).redistribute(placements=[after])
    return moved.to_local(grad_placements=[gradient or after])


def _on_first(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda module, args: (change(args[0]), *args[1:])


def _on_result(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda module, args, result: change(result)
