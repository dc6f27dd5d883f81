"""The model of a checkpoint: its config, its weights, its adapter."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from llm.adapter import Lora, merged, n_values
from llm.errors import CheckpointError, ConfigError
from llm.files import read_tensors
from llm.model import ModelConfig, least_parameters
from llm.train.checkpoint.manifest import MANIFEST, MODEL, MODEL_FILE, read_manifest, verify
from llm.train.sharding import local, sharded_like
from llm.train.tensors import Stored


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read one safetensors file on the CPU.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return read_tensors(path)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from None


def read_model(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config and the weights of a checkpoint, which is checked; adapters are folded in.

    Raises:
        CheckpointError: it is damaged, or holds too little for its config.
        ConfigError: its config is none of a model.
    """
    model_config, tensors = read_parts(folder)
    return model_config, _merged(folder, tensors)


def read_parts(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """As `read_model`, but what was trained beside the weights stays beside them."""
    model_config = ModelConfig.from_dict(verify(folder)["model"])
    stored = Stored(folder, MODEL)
    # Before anybody makes a model of that size.
    if sum(n_values(*named) for named in stored.tensors.items()) < least_parameters(model_config):
        raise CheckpointError(
            f"{folder / MODEL_FILE} holds too little for the model that {MANIFEST} describes."
        )
    return model_config, stored.read_whole()


def adapter_of(folder: Path) -> Lora | None:
    """The adapter of a checkpoint, which is not looked at beyond that; None where it has none.

    Raises:
        CheckpointError: its settings are none.
    """
    settings = read_manifest(folder).get("adapter")
    try:
        return None if settings is None else Lora(**settings)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: its adapter is none ({error}).") from error


def _merged(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    lora = adapter_of(folder)
    try:
        return tensors if lora is None else merged(tensors, lora)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} is damaged: its adapter is of another model ({error}).") from error


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights by name, a tied one once."""
    return {name: p.detach() for name, p in model.named_parameters()}


def restore_weights(model: nn.Module, folder: Path) -> None:
    """Fill the model's parameters, however they are laid out, from a checkpoint.

    Raises:
        CheckpointError: as `load_weights`.
    """
    load_weights(model, Stored(folder, MODEL).read_like(dict(model.named_parameters())), folder)


def load_weights(model: nn.Module, tensors: dict[str, Tensor], origin: Path) -> None:
    """Copy `tensors`, whole or laid out as the parameters are, into the model's parameters.

    Raises:
        CheckpointError: a name or shape differs, or a value is not finite; the model is then unchanged.
    """
    own = dict(model.named_parameters())
    check_names({n: p.shape for n, p in own.items()}, {n: t.shape for n, t in tensors.items()}, origin)
    check_values(own, tensors, origin)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(sharded_like(tensors[name], parameter))


def check_names(own: dict[str, torch.Size], found: dict[str, torch.Size], origin: Path) -> None:
    """Refuse weights of another model.

    Raises:
        CheckpointError: a name or shape differs.
    """
    if own != found:
        wrong = sorted(own.keys() ^ found.keys()) or sorted(n for n in own if own[n] != found[n])
        raise CheckpointError(
            f"{origin} holds another model: {', '.join(wrong[:4])} differ in name or shape."
        )


def check_values(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Refuse what is no finite number, and what is no code where `own` holds codes.

    Raises:
        CheckpointError: there is such a value.
    """
    strange = sorted(
        name
        for name, tensor in tensors.items()
        if not (_is_finite(tensor) if own[name].is_floating_point() else tensor.dtype == own[name].dtype)
    )
    if strange:
        raise CheckpointError(f"{origin} is damaged: {', '.join(strange[:4])} hold what is no finite number.")


def _is_finite(tensor: Tensor) -> bool:
    # Floats of one byte are written by nobody here, and torch can't judge them.
    return tensor.is_floating_point() and tensor.element_size() > 1 and bool(local(tensor).isfinite().all())
