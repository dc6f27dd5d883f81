"""Models to and from Hugging Face's formats, by one reversible set of rules a family."""

import difflib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.errors import CheckpointError, ConfigError
from llm.hub import folder as files
from llm.hub import rules
from llm.hub.gpt2 import GPT2
from llm.hub.llama import LLAMA
from llm.hub.qwen3 import QWEN3
from llm.model import ModelConfig, Transformer

__all__ = ["FAMILIES", "from_huggingface", "from_huggingface_state", "local_folder", "to_huggingface"]

local_folder = files.local
FAMILIES = {family.model_type: family for family in (QWEN3, LLAMA, GPT2)}


def to_huggingface(
    model: Transformer | rules.State,
    config: ModelConfig,
    *,
    model_type: str | None = None,
    end_of_text: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert weights (a model or its state) to the tensors and config.json of the family that can express `config`.

    `model_type` asks for one family; `end_of_text` is the id that begins and ends texts. A ConfigError says,
    family by family, what cannot be expressed. Tied weights appear once. Tensors may share memory with `model`.
    """
    family = _family_for(config, model_type)
    state = model.state_dict() if isinstance(model, Transformer) else model
    rules.check_tensors(rules.shapes_of(config), state, "the model's state")
    theirs = rules.to_theirs(family, config, state)
    dtype = str(next(iter(theirs.values())).dtype).removeprefix("torch.")
    tokens = {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    return theirs, family.write_config(config) | tokens | {"torch_dtype": dtype}


def from_huggingface(folder: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read a folder of config.json and safetensors into our config and weights.

    A ConfigError says what the model has that we don't; a CheckpointError, what is missing or damaged.
    """
    folder = Path(folder)
    hf_config = files.read_config(folder)
    _read_config(hf_config)  # refuse before gigabytes are read
    return from_huggingface_state(files.read_weights(folder), hf_config, where=str(folder))


def from_huggingface_state(
    state: rules.State, hf_config: dict[str, Any], where: str = "the state"
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Convert their tensors and config.json to our config and weights; the same errors as `from_huggingface`."""
    family, config = _read_config(hf_config)
    rules.check_number(config, state, where)
    theirs = _tidy(family, config, state, where)
    rules.check_tensors(rules.expected(family, config), theirs, where)
    return config, rules.to_ours(family, config, theirs)


def _family_for(config: ModelConfig, model_type: str | None) -> rules.Family:
    candidates = FAMILIES.values() if model_type is None else [_family_named(model_type)]
    refusals = []
    for family in candidates:
        problems = family.problems(config)
        if not problems:
            return family
        refusals.append(f"{family.model_type} cannot express {', '.join(problems)}")
    raise ConfigError(f"no Hugging Face format for this model: {'; '.join(refusals)}")


def _family_named(model_type: object) -> rules.Family:
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    close = difflib.get_close_matches(str(model_type), FAMILIES, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"model_type {model_type!r} is not supported, only {', '.join(FAMILIES)}{hint}")


def _read_config(hf_config: dict[str, Any]) -> tuple[rules.Family, ModelConfig]:
    family = _family_named(hf_config.get("model_type"))
    if hf_config.get("quantization_config") is not None:
        raise ConfigError(
            "the weights are quantized (quantization_config): convert them to floating point first"
        )
    return family, family.read_config(hf_config)


def _tidy(family: rules.Family, config: ModelConfig, state: rules.State, where: str) -> dict[str, Tensor]:
    """Give tensors their full names, without leftovers and without the second name of tied weights."""
    bare = not any(name.startswith(family.base) for name in state)
    full = {
        family.base + name if bare and name != "lm_head.weight" else name: tensor
        for name, tensor in state.items()
    }
    kept = {name: tensor for name, tensor in full.items() if not re.fullmatch(family.ignored, name)}
    if config.tie_embeddings and "lm_head.weight" in kept:
        head, tokens = kept.pop("lm_head.weight"), kept.get(family.base + family.tokens)
        if tokens is not None and not torch.equal(head, tokens):
            raise CheckpointError(
                f"{where}: lm_head.weight differs from the embedding that it should be tied to"
            )
    return kept
