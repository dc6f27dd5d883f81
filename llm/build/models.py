"""The model that is trained: laid out by its config, its adapter, its first weights."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from llm.adapter import Lora, initial_weights
from llm.build.nodes import Config, instantiate
from llm.build.origins import Origin
from llm.config import resolve
from llm.errors import ConfigError
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.heads import TASK_PARTS
from llm.train import checkpoint
from llm.train.activation_checkpointing import apply_activation_checkpointing
from llm.train.parallelism import Parallelism
from llm.train.strategies import ZeroStrategy, check_deepspeed
from llm.train.tensor_parallel import check_divides


def adapter(config: Config) -> Lora | None:
    """What is trained beside a frozen model; None where its own weights are.

    Raises:
        ConfigError: there is no model to freeze, or a setting is out of its range.
    """
    if config["adapter"] is None:
        return None
    if config["init_from"] is None:
        raise ConfigError(
            "adapter: it is trained beside a model that is there already; give one by init_from=."
        )
    return cast(Lora, instantiate(config["adapter"], config))


def model(config: Config, model_config: ModelConfig) -> Transformer:
    """A model without storage: where its weights lie is for the strategy to say, and `module` gives them values."""
    beside = adapter(config)
    with torch.device("meta"):
        net = Transformer(model_config)
    if beside is not None:
        beside.attach(net)
    apply_activation_checkpointing(net, config["activation_checkpointing"])
    return net


def check_layout(config: Config, model_config: ModelConfig, parallelism: Parallelism) -> None:
    """Refuse a strategy whose processes can't share each matrix product of such a model and its adapter evenly.

    Raises:
        ConfigError: see `check_divides`.
    """
    if parallelism.shares_products:
        beside = adapter(config)
        check_divides(
            model_config, parallelism.tensor_parallel_size, None if beside is None else beside.quantize
        )


def check_installed(config: Config) -> None:
    """Refuse a strategy whose package is missing.

    Raises:
        ConfigError: see `check_deepspeed`.
    """
    strategy = config["trainer"]["strategy"]
    if isinstance(strategy, dict) and resolve(strategy["_target_"], config["packages"]) is ZeroStrategy:
        check_deepspeed()


def initialise(net: Transformer, origin: Origin, seed: int) -> None:
    """Give a model its first weights: those of `origin`, else drawn alike on every rank under every strategy.

    Where the labels differ, what each of the two tasks has for itself (the head, the pooler) is drawn anew or left out.
    """
    if origin.weights and net.config.labels == origin.model_config.labels:
        checkpoint.load_weights(net, initial_weights(net, origin.weights, seed), Path("init_from"))
        return
    init_weights(net, seed)
    if origin.weights:
        parts = {name: p.detach() for name, p in net.named_parameters() if name.startswith(TASK_PARTS)}
        kept = {
            name: weight
            for name, weight in origin.weights.items()
            if not name.startswith(TASK_PARTS) or _fits(parts, name, weight)
        }
        checkpoint.load_weights(net, parts | initial_weights(net, kept, seed), Path("init_from"))


def _fits(parts: dict[str, Tensor], name: str, weight: Tensor) -> bool:
    """Whether a part of the task that was trained before is as the new one wants it; labels are never."""
    return name in parts and not name.startswith("label_head.") and parts[name].shape == weight.shape
