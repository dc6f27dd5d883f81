"""Writing an adapter alone, as PEFT loads it beside the exported model that it was trained on."""

# Shape legend: r rank, i inputs, o outputs of one of our layers; R, I, O of the one of theirs that holds it.

import json
import shlex
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from llm.adapter import LowRank, layers
from llm.adapter.frozen import Frozen
from llm.adapter.lora import Decomposed
from llm.errors import ConfigError
from llm.files import write_json
from llm.hub import family_for
from llm.hub.export import About
from llm.hub.rules import Rule, pairs
from llm.model import Transformer
from llm.tokenizer import Tokenizer

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
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
    (folder / WEIGHTS).chmod(0o644)
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
