"""A DeepSpeed engine's weights and optimizer state by parameter name, in and out, one tensor at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm.errors import CheckpointError
from llm.train import checkpoint
from llm.train.tensors import Stored

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def full_shape(parameter: Tensor) -> torch.Size:
    """The shape of a parameter, also where ZeRO-3 has emptied it."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def frozen_share(model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
    """Copies, on the CPU, of `own_frozen`.

    The engine rounds a model's weights to the precision that it computes in, and its optimizer keeps none of these.
    """
    own = own_frozen(model, rank, world_size)
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in own.items()}


def own_frozen(model: nn.Module, rank: int, world_size: int) -> dict[str, nn.Parameter]:
    """The frozen weights that process `rank` writes of a checkpoint, but for those that ZeRO-3 splits."""
    return {
        name: parameter
        for number, (name, parameter) in enumerate(model.named_parameters())
        if _is_share(number, rank, world_size)
        and not (parameter.requires_grad or hasattr(parameter, "ds_id"))
    }


def _is_share(number: int, rank: int, world_size: int) -> bool:
    return number % world_size == rank


class ZeroState:
    """The float32 weights of a model and the moments of its AdamW, both split over processes by DeepSpeed.

    Weights that are frozen are no part of its optimizer, and have no moments. All processes call each method together.

    Args:
        model: the network inside the engine.
        optimizer: DeepSpeed's, around an AdamW.
        frozen: `frozen_share` of the model, from before an engine that rounds it; else nothing.
    """

    def __init__(self, model: nn.Module, optimizer: Any, frozen: dict[str, Tensor]) -> None:
        self._parameters = dict(model.named_parameters())
        self._trained = {name: p for name, p in self._parameters.items() if p.requires_grad}
        self._optimizer = optimizer
        self._frozen = frozen

    def flat_states(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """This process's share of the float32 weights, a flat tensor a group, and AdamW's state of each."""
        names = ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat")
        for flat in next(getattr(self._optimizer, name) for name in names if hasattr(self._optimizer, name)):
            yield flat, self._optimizer.optimizer.state[flat]

    def make_states(self) -> None:
        """Give AdamW the state that its first step would make, so that all of it can be found by name."""
        fused = self._optimizer.optimizer.param_groups[0]["fused"]
        for flat, state in self.flat_states():
            state[STEP] = torch.zeros((), dtype=torch.float32, device=flat.device if fused else "cpu")
            state.update({key: torch.zeros_like(flat) for key in MOMENTS})
        if hasattr(self._optimizer, "_lazy_init_hp_params_optimizer_state"):
            # DeepSpeed would do so after the first group's step, when the second has no state yet.
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What this process writes of a checkpoint: of n processes every n-th tensor, whole, on the CPU.

        Each tensor is put together on all processes, and kept by one.
        """
        from deepspeed.utils import safe_get_full_optimizer_state

        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        step = next(state[STEP] for _, state in self.flat_states())
        weights: dict[str, Tensor] = {}
        states: dict[str, Tensor] = {}
        for number, (name, parameter) in enumerate(self._parameters.items()):
            mine = _is_share(number, rank, world_size)
            with _weight(parameter) as weight:
                _keep(weights, name, self._frozen.get(name, weight), mine)
            if name not in self._trained:
                continue
            for key in MOMENTS:
                _keep(states, f"{name}/{key}", safe_get_full_optimizer_state(parameter, key), mine)
            _keep(states, f"{name}/{STEP}", step, mine)
        return {checkpoint.MODEL: weights, checkpoint.OPTIMIZER: states}

    def restore(self, folder: Path) -> None:
        """Fill weights and moments from a checkpoint; each process reads all of it, a tensor at a time.

        Raises:
            CheckpointError: it is of another model or optimizer, or a value is not finite.
        """
        from deepspeed.utils import safe_set_full_optimizer_state

        weights, states = Stored(folder, checkpoint.MODEL), Stored(folder, checkpoint.OPTIMIZER)
        self._check(weights, states, folder)
        for name, parameter in self._parameters.items():
            value = _read(weights, name)
            checkpoint.check_values({name: parameter}, {name: value}, folder)
            self._set_weight(parameter, value)
            if name in self._frozen:
                self._frozen[name] = value
        step = _read_number(states, f"{next(iter(self._trained))}/{STEP}")
        for _, state in self.flat_states():
            state[STEP].copy_(step)
        for name, parameter in self._trained.items():
            for key in MOMENTS:
                value = _read_number(states, f"{name}/{key}").to(_device(parameter))
                if hasattr(parameter, "ds_id"):
                    self._set_share(parameter, value, key)
                else:
                    safe_set_full_optimizer_state(parameter, value, key)

    def _check(self, weights: Stored, states: Stored, folder: Path) -> None:
        shapes = {name: full_shape(p) for name, p in self._parameters.items()}
        checkpoint.check_names(shapes, {name: about.shape for name, about in weights.tensors.items()}, folder)
        wanted = {f"{name}/{key}": shapes[name] for name in self._trained for key in MOMENTS}
        wanted |= {f"{name}/{STEP}": torch.Size() for name in self._trained}
        found = {name: about.shape for name, about in states.tensors.items()}
        if found != wanted:
            wrong = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
            raise checkpoint.other_optimizer(wrong)

    @torch.no_grad()
    def _set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        value = value.to(_device(parameter))
        if hasattr(parameter, "ds_id"):
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.copy_(value)
            if parameter.requires_grad:
                self._set_share(parameter, value)
        else:
            parameter.copy_(value)
            if parameter.requires_grad:
                safe_set_full_fp32_param(parameter, value)

    def _set_share(self, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Put this process's share of `value` where ZeRO-3 keeps the parameter's weight or moment."""
        share, _ = self._optimizer._get_fp32_opt_state_partition(
            parameter, release_swap_buffers=False, optim_state_key=key
        )
        begin = share.numel() * torch.distributed.get_rank()
        own = value.flatten()[begin : begin + share.numel()]
        # The last share is filled up.
        share.data[: own.numel()].copy_(own)


@contextmanager
def _weight(parameter: nn.Parameter) -> Iterator[Tensor]:
    """Within, a parameter's weight whole: the optimizer's in float32, of a frozen one the model's."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    if parameter.requires_grad:
        yield safe_get_full_fp32_param(parameter)
        return
    split = [parameter] if hasattr(parameter, "ds_id") else []
    with deepspeed.zero.GatheredParameters(split, enabled=bool(split)):
        yield parameter


def _keep(kept: dict[str, Tensor], name: str, tensor: Tensor, mine: bool) -> None:
    if mine:
        kept[name] = tensor.detach().to("cpu", copy=True).contiguous()


def _read(stored: Stored, name: str) -> Tensor:
    target = torch.zeros_like(stored.tensors[name], device="cpu")
    stored.read_into({name: target})
    return target


def _read_number(stored: Stored, name: str) -> Tensor:
    value = _read(stored, name)
    # Squares may overflow, but no optimizer makes a NaN of finite gradients.
    if not value.is_floating_point() or value.element_size() == 1 or bool(value.isnan().any()):
        raise CheckpointError(f"The checkpoint is damaged: {name} holds what is no number.")
    return value


def _device(parameter: Tensor) -> torch.device:
    if not hasattr(parameter, "ds_id"):
        return parameter.device
    from deepspeed.accelerator import get_accelerator

    return torch.device(get_accelerator().current_device_name())
