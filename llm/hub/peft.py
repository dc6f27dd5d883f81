"""Adapters in PEFT's format: written alone, beside the exported model that they were trained on, and read into their model.

Shapes: r rank, i inputs, o outputs of one of our layers; R, I, O of the one of theirs that holds it.
"""

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from llm.adapter import LowRank, layers
from llm.adapter.frozen import Frozen
from llm.adapter.lora import GAIN, A, B, Decomposed, folded
from llm.errors import CheckpointError, ConfigError
from llm.files import read_object, read_tensors, share, write_json
from llm.hub import family_for
from llm.hub.export import About
from llm.hub.folder import INDEX, WHOLE
from llm.hub.rules import Rule, pairs, to_ours, to_theirs
from llm.model import ModelConfig, Transformer
from llm.tokenizer import Tokenizer

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
# What a tensor of an adapter is, behind the name of its module.
PARTS = re.compile(r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.weight)?")
# What changes the computation, and has no part here.
WITHOUT = ("layer_replication", "alora_invocation_tokens", "use_qalora", "lora_bias", "target_parameters")
KINDS = {"decoder": "CAUSAL_LM", "encoder": "FEATURE_EXTRACTION", "encoder_decoder": "SEQ_2_SEQ_LM"}


class Theirs(NamedTuple):
    """An adapter of one of their modules: its matrices, and of a decomposed one the rows' lengths."""

    a_ri: Tensor
    b_or: Tensor
    gain_o: Tensor | None


def write(folder: Path, model: Transformer, tokenizer: Tokenizer, about: About) -> list[str]:
    """Write the adapters of `model` into `folder`; returns the lines to type next.

    A ConfigError says, before anything is written, what PEFT has no place for.
    """
    if model.config.labels:
        raise ConfigError(
            "format=peft: the head for the labels was trained too; format=hf exports the whole model."
        )
    adapters = dict(_adapters(model))
    first = next(iter(layers(model).values()))
    tensors: dict[str, Tensor] = {}
    for name, theirs in adapters.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = theirs.a_ri.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = theirs.b_or.contiguous()
        if theirs.gain_o is not None:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = theirs.gain_o.contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    share(folder / WEIGHTS)
    write_json(folder / CONFIG, _config(model, adapters, first, str(about.settings.get("init_from"))))
    code = (
        "from transformers import AutoModel as M; from peft import PeftModel as P; "
        f"print(P.from_pretrained(M.from_pretrained('the exported base model'), {json.dumps(str(about.out))}))"
    )
    return [f"python -c {shlex.quote(code)}"]


def _config(model: Transformer, adapters: dict[str, Theirs], first: LowRank, base: str) -> dict[str, object]:
    ranks = {name: len(theirs.a_ri) for name, theirs in adapters.items()}
    return {
        "peft_type": "LORA",
        "task_type": KINDS[model.config.architecture],
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": first.rank,
        # Their weight is this over the rank, whatever ours is divided by.
        "lora_alpha": first.scale * first.rank,
        "alpha_pattern": {name: first.scale * rank for name, rank in ranks.items() if rank != first.rank},
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != first.rank},
        "lora_dropout": first.dropout.p,
        "target_modules": sorted(adapters),
        "use_rslora": False,
        "use_dora": isinstance(first, Decomposed),
        "fan_in_fan_out": any(rule.transposed for _, _, rule in _modules(model)),
        "bias": "none",
        "modules_to_save": None,
    }


def _modules(model: Transformer) -> Iterator[tuple[str, list[str], Rule]]:
    """Each of their modules with any adapter, our layers in it, and the rule."""
    adapted = layers(model)
    for their, ours, rule in pairs(family_for(model.config), model.config):
        names = [name.removesuffix(".weight") for name in ours]
        if their.endswith(".weight") and any(name in adapted for name in names):
            yield their.removesuffix(".weight"), names, rule


def _adapters(model: Transformer) -> Iterator[tuple[str, Theirs]]:
    """Their modules with their adapters; one that holds several of our layers has the sum of their ranks."""
    adapted, heads = layers(model), model.config.n_heads
    for their, names, rule in _modules(model):
        straight = copy(rule)
        straight.transposed = False  # PEFT keeps its matrices alike for every layer
        present = [adapted[name] for name in names if name in adapted]
        a_ri = torch.cat([layer.lora_a for layer in present]).detach()
        b_or = straight.join(list(_columns(model, names, len(a_ri))), heads)
        yield their, Theirs(a_ri, b_or, _gain(model, names, straight))


def _columns(model: Transformer, names: list[str], rank: int) -> Iterator[Tensor]:
    """For each of our layers its rows (o, R) of their second matrix: its own in its columns, zeros elsewhere."""
    at = 0
    for layer in _linears(model, names):
        rows_or = torch.zeros(layer.out_features, rank)
        if isinstance(layer, LowRank):
            rows_or[:, at : at + layer.rank] = layer.lora_b.detach()
            at += layer.rank
        yield rows_or


def _gain(model: Transformer, names: list[str], rule: Rule) -> Tensor | None:
    """The lengths of their module's rows; those of our layers without an adapter stay."""
    found = _linears(model, names)
    if not any(isinstance(layer, Decomposed) for layer in found):
        return None
    gains = [
        layer.lora_gain.detach() if isinstance(layer, Decomposed) else _rows(layer).norm(dim=1)
        for layer in found
    ]
    return rule.join([gain[:, None] for gain in gains], model.config.n_heads)[:, 0]


def _rows(layer: nn.Linear) -> Tensor:
    return (layer.matrix() if isinstance(layer, Frozen) else layer.weight).detach()


def _linears(model: Transformer, names: list[str]) -> list[nn.Linear]:
    return [cast(nn.Linear, model.get_submodule(name)) for name in names]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter alone."""
    return (folder / CONFIG).is_file() and not any((folder / name).is_file() for name in (WHOLE, INDEX))


def base_of(folder: Path) -> str:
    """The model that an adapter is for, as its folder says: a folder or a hub id.

    Raises:
        CheckpointError: it says nothing of that, or names another adapter.
    """
    base = _settings(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"{folder / CONFIG} names no model that the adapter is for: write its folder or hub id there, as "
            "base_model_name_or_path."
        )
    if is_adapter(Path(base).expanduser()):
        raise CheckpointError(f"{folder / CONFIG} names {base} as its model, which is an adapter itself.")
    return base


def read(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model of `config` with the adapter of a folder folded in, as PEFT's `merge_and_unload` does.

    Raises:
        CheckpointError: it is of another model, or damaged.
        ConfigError: it is of a kind that has no part here, or the model is.
    """
    family = family_for(config)
    theirs = to_theirs(family, config, weights)
    turned = {name for name, _, rule in pairs(family, config) if rule.transposed}
    for name, (a_ri, b_or, gain_o) in _scaled(folder, config, theirs).items():
        frozen_oi = theirs[name].t() if name in turned else theirs[name]
        whole_oi = folded(frozen_oi, a_ri, b_or, gain_o, 1.0)
        theirs[name] = whole_oi.t().contiguous() if name in turned else whole_oi
    return to_ours(family, config, theirs)


def beside(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter of a folder as tensors beside our layers of a model of `config`, to be attached with a scale of 1.

    Where one of their modules holds several of our layers, each has the whole first matrix and its rows of the second.
    Errors are those of `read`.
    """
    family = family_for(config)
    scaled = _scaled(folder, config, to_theirs(family, config, weights))
    found: dict[str, Tensor] = {}
    for their, ours, rule in pairs(family, config):
        if their not in scaled:
            continue
        straight = copy(rule)
        straight.transposed = False  # PEFT keeps its matrices alike for every layer
        sizes = [len(weights[name]) for name in ours]
        a_ri, b_or, gain_o = scaled[their]
        layers = [name.removesuffix(".weight") for name in ours]
        for layer, rows_or in zip(layers, straight.split(b_or, sizes, config.n_heads), strict=True):
            found |= {f"{layer}.{A}": a_ri, f"{layer}.{B}": rows_or}
        if gain_o is not None:
            gains = straight.split(gain_o[:, None], sizes, config.n_heads)
            found |= {f"{layer}.{GAIN}": gain_o1[:, 0] for layer, gain_o1 in zip(layers, gains, strict=True)}
    return found


def _scaled(folder: Path, config: ModelConfig, theirs: Mapping[str, Tensor]) -> dict[str, Theirs]:
    """The adapter of each of their matrices, by its name among `theirs`, its scale in the second matrix.

    Raises:
        CheckpointError: it is of another model, or damaged.
        ConfigError: it is of a kind that has no part here.
    """
    settings = _settings(folder)
    _check_kind(folder, settings)
    family = family_for(config)
    turned = {name for name, _, rule in pairs(family, config) if rule.transposed}
    found: dict[str, Theirs] = {}
    for module, parts in _parts(folder).items():
        names = (f"{module}.weight", f"{family.base}{module}.weight")
        name = next((name for name in names if name in theirs), None)
        if name is None:
            raise _of_another(folder, settings, f"it changes {module}, which that one lacks")
        shape = tuple(reversed(theirs[name].shape) if name in turned else theirs[name].shape)
        a_ri, b_or, gain_o = (parts.get(part) for part in ("lora_A", "lora_B", "lora_magnitude_vector"))
        wrong = _of_another(folder, settings, f"{module} has {shape}, the adapter {_shapes(parts)}")
        if a_ri is None or b_or is None or (len(b_or), a_ri.shape[-1], len(a_ri)) != (*shape, b_or.shape[-1]):
            raise wrong
        if gain_o is not None and gain_o.shape != shape[:1]:
            raise wrong
        found[name] = Theirs(a_ri, b_or * _scale(settings, module, len(a_ri)), gain_o)
    return found


def _shapes(parts: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {part: tuple(tensor.shape) for part, tensor in parts.items()}


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read ({error}).") from error


def _check_kind(folder: Path, settings: Mapping[str, Any]) -> None:
    wrong = [f"{key}={settings[key]}" for key in WITHOUT if settings.get(key)]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        wrong.insert(0, f"peft_type={settings.get('peft_type')} bias={settings.get('bias')}")
    if wrong:
        raise ConfigError(f"{folder}: {', '.join(wrong)}: LoRA and DoRA of matrices alone are read here.")


def _parts(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of each of their modules, by what they are."""
    try:
        tensors = read_tensors(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read ({error}).") from error
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = PARTS.fullmatch(name.removeprefix(PREFIX))
        if found is None or not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ConfigError(
                f"{folder}: it holds {name}, which is no part of an adapter of matrices, or no finite numbers."
            )
        parts.setdefault(found["module"], {})[found["part"]] = tensor
    if not parts:
        raise CheckpointError(f"{folder / WEIGHTS} holds no adapter.")
    return parts


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """What PEFT multiplies a module's product by."""
    patterns = settings.get("alpha_pattern") or {}
    named = [value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module)]
    alpha = float(named[0] if named else settings.get("lora_alpha", rank))
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_another(folder: Path, settings: Mapping[str, Any], why: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} is an adapter of another model than {settings.get('base_model_name_or_path')}: {why}."
    )
