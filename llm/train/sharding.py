"""How a model is laid out over processes, from outside it: sharded by FSDP2, gathered to write, measured whole."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Replicate

from llm.model import Transformer
from llm.model.block import Block

# What DeepSpeed leaves on a parameter of which each process has a share, by stage 3 and below.
ZERO = ("ds_id", "_hp_mapping")


def blocks(net: Transformer) -> Iterator[Block]:
    """The blocks of both stacks, in the order in which they run."""
    for stack in (net.encoder, net.stack):
        if stack is not None:
            yield from stack.blocks  # type: ignore[misc]


def shard(net: Transformer, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    """Split every parameter over `mesh`, in place; a block is gathered while it runs, the rest with the model.

    FSDP2 (PyTorch's `fully_shard`) is ZeRO-3 (arXiv 1910.02054) one parameter at a time.
    """
    for block in blocks(net):
        fully_shard(block, mesh=mesh, mp_policy=policy)
        # A decoder projects its source before it runs.
        register_fsdp_forward_method(block, Block.project_source.__name__)
    fully_shard(net, mesh=mesh, mp_policy=policy)


def is_sharded(net: nn.Module) -> bool:
    """Whether each process holds a share of `net` alone, or of its weights in float32."""
    return any(isinstance(p, DTensor) or any(hasattr(p, mark) for mark in ZERO) for p in net.parameters())


def release(net: nn.Module) -> None:
    """Let go of what forward passes without a backward pass left gathered."""
    if isinstance(net, FSDPModule):
        net.reshard()


@contextmanager
def gathered(net: nn.Module) -> Iterator[None]:
    """Within, a sharded model can be called by any of its methods, by all processes together.

    What belongs to no block is held whole meanwhile; each block is gathered as it runs, as in training.
    """
    if isinstance(net, FSDPModule):
        net.unshard()
    try:
        with _zero_gathered(net):
            yield
    finally:
        release(net)


@contextmanager
def _zero_gathered(net: nn.Module) -> Iterator[None]:
    """Within, what ZeRO-3 has split is whole: its hooks would gather nothing for a call past `forward`."""
    split = [parameter for parameter in net.parameters() if hasattr(parameter, "ds_id")]
    if not split:
        yield
        return
    import deepspeed

    hooks = [(m, m._forward_pre_hooks, m._forward_hooks) for m in net.modules()]
    for module, before, after in hooks:
        # They would let go of weights after each layer.
        module._forward_pre_hooks, module._forward_hooks = type(before)(), type(after)()
    try:
        with deepspeed.zero.GatheredParameters(split):
            yield
    finally:
        for module, before, after in hooks:
            module._forward_pre_hooks, module._forward_hooks = before, after


def whole(tensor: Tensor) -> Tensor:
    """The full tensor behind a sharded one, which all processes must ask for; a plain one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's share of a sharded tensor; a plain one as it is."""
    tensor = getattr(tensor, "ds_tensor", tensor)
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This rank's share of a tensor that every rank holds whole, laid out as `parameter`; no communication.

    A tensor that is sharded already stays as it is.
    """
    if not isinstance(parameter, DTensor) or isinstance(tensor, DTensor):
        return tensor
    mesh = parameter.device_mesh
    replicas = [Replicate()] * mesh.ndim
    replicated = DTensor.from_local(tensor.to(parameter.device), mesh, replicas, run_check=False)
    return replicated.redistribute(mesh, parameter.placements)


@torch.no_grad()
def clip_by_global_norm(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale the gradients so that their norm over all parameters and processes is at most `limit`.

    Returns the norm that they had; all processes must call it.
    """
    by_mesh: dict[DeviceMesh | None, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            by_mesh.setdefault(mesh, []).append(parameter)
    # torch adds up norms within one mesh alone.
    norms = [whole(nn.utils.get_total_norm([_grad(p) for p in group])) for group in by_mesh.values()]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if limit < math.inf:
        shares = [local(_grad(p)) for group in by_mesh.values() for p in group]
        # As torch's clip_grads_with_norm_ has it, but share by share: DTensor would first look for each one's layout,
        # which takes most of a first step.
        torch._foreach_mul_(shares, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm.item()


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
