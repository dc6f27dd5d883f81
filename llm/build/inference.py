"""Models that are trained already, ready to use."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from llm.adapter import Adapted, attach, is_attachable, without_adapters
from llm.build.origins import read_origin
from llm.errors import ConfigError
from llm.generation import pack, quantize
from llm.model import ModelConfig, Transformer
from llm.model.heads import TASK_PARTS
from llm.tokenizer import Tokenizer, load_tokenizer
from llm.train import checkpoint
from llm.train.hardware import place
from llm.train.precision import compute_dtype
from llm.train.run import Run


def trained_model(run: Run, which: str | None) -> tuple[Transformer, Path]:
    """A run's model, ready to use, and the checkpoint that it is from (see `checkpoint.find`)."""
    folder = checkpoint.find(run.checkpoints, which)
    model_config, tensors = checkpoint.read_model(folder)
    net = Transformer(model_config)
    checkpoint.load_weights(net, tensors, folder)
    place(net.eval())
    return net, folder


def adapted_model(run: Run, which: str | None) -> tuple[Transformer, Path]:
    """A run's model with its adapter beside it, on the CPU, and the checkpoint that it is from.

    Raises:
        ConfigError: the run has no adapter.
    """
    folder = checkpoint.find(run.checkpoints, which)
    beside = checkpoint.adapter_of(folder)
    if beside is None:
        raise ConfigError(f"run={run.folder}: it was trained without an adapter.")
    net = Transformer(ModelConfig.from_dict(checkpoint.read_manifest(folder)["model"]))
    beside.attach(net)
    checkpoint.restore_weights(net, folder)
    return net.eval(), folder


def for_inference(net: Transformer, precision: str, rows: int) -> Transformer:
    """`net` laid out to write `rows` texts at a time, in float32, bfloat16 or by weights of eight bits."""
    return quantize(net, rows) if precision == "int8" else pack(net.to(compute_dtype(precision)), rows)


def usable_model(name_or_path: str, which: str | None) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer of what `read_origin` reads, ready to use."""
    found = read_origin(name_or_path, which)
    net = Transformer(found.model_config)
    checkpoint.load_weights(net, found.weights, Path(name_or_path))
    place(net.eval())
    return net, found.tokenizer.build(())


@dataclass(frozen=True)
class Usable:
    """A model and its tokenizer, ready to use; `make` gives the model once `net` is laid out, which others may share."""

    net: Transformer
    tokenizer: Tokenizer
    make: Callable[[Transformer], Transformer] = lambda net: net


def usable_models(names: Sequence[str], which: str | None) -> list[Usable]:
    """As `usable_model` of each of `names`, but adapters on one model, of runs or of PEFT, share its weights.

    That model may be among `names`, as a run or a Hugging Face folder: its weights decide, not its name. An adapter that
    shares with none is folded in.
    """
    adapted = [name for name in names if _is_adapted(name, which)] if len(names) > 1 else []
    found = {name: Usable(*usable_model(name, which)) for name in names if name not in adapted}
    # A model whose head was for labels has none for tokens, so that it is the last to begin with.
    for number, name in enumerate(sorted(adapted, key=lambda name: _tells_labels(name, which))):
        found[name] = _beside(name, which, number, [one.net for one in found.values()])
    for name in adapted:
        if sum(one.net is found[name].net for one in found.values()) == 1:
            found[name] = Usable(*usable_model(name, which))
    return [found[name] for name in names]


class Adapter(NamedTuple):
    """An adapter, the config and the weights of the model that it is for, and the tokenizer.

    Its tensors are by our layers' names; their products are multiplied by `scale`.
    """

    model_config: ModelConfig
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    scale: float
    tokenizer: Tokenizer


def _is_adapted(name: str, which: str | None) -> bool:
    """Whether a run has an adapter, or a folder is one that PEFT saved."""
    run = Run(Path(name).expanduser())
    if run.exists():
        return checkpoint.adapter_of(checkpoint.find(run.checkpoints, which)) is not None
    from llm.hub import peft

    return peft.is_adapter(run.folder)


def _tells_labels(name: str, which: str | None) -> bool:
    run = Run(Path(name).expanduser())
    return run.exists() and bool(
        checkpoint.read_manifest(checkpoint.find(run.checkpoints, which))["model"].get("labels")
    )


def _adapter(name: str, which: str | None) -> Adapter:
    """What `_is_adapted` says is there."""
    run = Run(Path(name).expanduser())
    if not run.exists():
        from llm.hub import peft

        base = read_origin(peft.base_of(run.folder), None)
        tensors = peft.beside(run.folder, base.model_config, base.weights)
        return Adapter(base.model_config, base.weights, tensors, 1.0, base.tokenizer.build(()))
    folder = checkpoint.find(run.checkpoints, which)
    model_config, tensors = checkpoint.read_parts(folder)
    lora = checkpoint.adapter_of(folder)
    assert lora is not None
    tokenizer = load_tokenizer(run.tokenizer)
    return Adapter(model_config, without_adapters(tensors, lora), tensors, lora.scale, tokenizer)


def _beside(name: str, which: str | None, number: int, nets: Sequence[Transformer]) -> Usable:
    """The model that an adapter makes of the first of `nets` that it is for, else of one of its own."""
    model_config, weights, tensors, scale, tokenizer = _adapter(name, which)
    net = next((net for net in nets if _is_beneath(net, model_config, weights)), None)
    if net is None:
        net = Transformer(model_config)
        checkpoint.load_weights(net, weights, Path(name))
        place(net.eval())
    if not is_attachable(net, tensors):
        return Usable(*usable_model(name, which))
    attach(net, number, scale, tensors)
    heads = {name: weight for name, weight in weights.items() if name.startswith(TASK_PARTS)}
    return Usable(net, tokenizer, functools.partial(Adapted, number=number, config=model_config, heads=heads))


def _is_beneath(net: Transformer, model_config: ModelConfig, weights: Mapping[str, Tensor]) -> bool:
    """Whether `net` has these weights, but for the parts of a task where labels tell it."""

    def body(names: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: names[name] for name in names if not (model_config.labels and name.startswith(TASK_PARTS))
        }

    own, others = body(dict(net.named_parameters())), body(weights)
    if _unlabelled(net.config) != _unlabelled(model_config) or own.keys() != others.keys():
        return False
    return all(torch.equal(own[name].detach().cpu(), others[name]) for name in own)


def _unlabelled(model_config: ModelConfig) -> ModelConfig:
    """A config without what a task or training alone adds to it."""
    return dataclasses.replace(
        model_config, labels=(), labelled="text", number_mean=0.0, number_std=1.0, pooler=False, dropout=0.0
    )
