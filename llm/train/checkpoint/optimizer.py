"""The optimizer's state by the names of parameters, whatever their layout."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from llm.errors import CheckpointError
from llm.train.checkpoint.manifest import OPTIMIZER, OPTIMIZER_FILE
from llm.train.sharding import local
from llm.train.tensors import Stored


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `<parameter name>/<state name>`; learning rates and the like belong to the config."""
    return _flat(_named_state(model, optimizer))


def restore_optimizer(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Fill the optimizer's state, however it is laid out, from a checkpoint.

    Raises:
        CheckpointError: as `load_optimizer_state`.
    """
    load_optimizer_state(
        model, optimizer, Stored(folder, OPTIMIZER).read_like(optimizer_state(model, optimizer))
    )


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave, by parameter name, keeping the optimizer's own settings.

    Raises:
        CheckpointError: it isn't the state of such an optimizer.
    """
    named = _named_state(model, optimizer)
    _check_state(_flat(named), {name for name, _ in model.named_parameters()}, tensors)
    named["state"] = {}
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        named["state"].setdefault(name, {})[key] = value
    set_optimizer_state_dict(model, optimizer, named)


def _check_state(own: dict[str, Tensor], parameters: set[str], tensors: dict[str, Tensor]) -> None:
    """Refuse state that lacks what the optimizer needs, or is of other shapes or parameters."""
    strange = {path for path in tensors if path.rpartition("/")[0] not in parameters}
    missing = own.keys() - tensors.keys()
    # What `read_like` found no place for is on meta.
    misshapen = {n for n, t in tensors.items() if t.is_meta or (n in own and own[n].shape != t.shape)}
    # Squares may overflow, but no optimizer makes a NaN of finite gradients.
    wrong = strange or misshapen or missing or {n for n, t in tensors.items() if _has_nan(t)}
    if wrong:
        raise other_optimizer(wrong)


def other_optimizer(wrong: Iterable[str]) -> CheckpointError:
    """What to raise where these tensors of a checkpoint are not this optimizer's."""
    return CheckpointError(
        f"The checkpoint's {OPTIMIZER_FILE} is of another optimizer or model: {', '.join(sorted(wrong)[:4])} differ in "
        "name or shape, or are NaN. init_from= takes the weights alone."
    )


def _has_nan(tensor: Tensor) -> bool:
    return tensor.is_complex() or bool(local(tensor).isnan().any())


def _flat(named: dict[str, Any]) -> dict[str, Tensor]:
    return {f"{name}/{key}": value for name, state in named["state"].items() for key, value in state.items()}


def _named_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return dict(get_optimizer_state_dict(model, optimizer, options=StateDictOptions()))
