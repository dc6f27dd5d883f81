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
from llm.hub.bert import BERT
from llm.hub.gpt2 import GPT2
from llm.hub.gpt_neox import GPT_NEOX
from llm.hub.llama import LLAMA
from llm.hub.marian import MARIAN
from llm.hub.mistral import MISTRAL
from llm.hub.modernbert import MODERN_BERT
from llm.hub.qwen2 import QWEN2
from llm.hub.qwen3 import QWEN3
from llm.hub.t5 import T5
from llm.model import ModelConfig, Transformer

__all__ = ["FAMILIES", "from_huggingface", "from_huggingface_state", "local_folder", "to_huggingface"]

local_folder = files.local
BY_ARCHITECTURE = {
    "decoder": (QWEN3, LLAMA, MISTRAL, QWEN2, GPT2, GPT_NEOX),
    "encoder": (BERT, MODERN_BERT),
    "encoder_decoder": (T5, MARIAN),
}
FAMILIES = {family.model_type: family for families in BY_ARCHITECTURE.values() for family in families}


def to_huggingface(
    model: Transformer | rules.State,
    config: ModelConfig,
    *,
    model_type: str | None = None,
    end_of_text: int | None = None,
    pad: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert weights (a model or its state) to the tensors and config.json of the family that can express `config`.

    `model_type` asks for one family; `end_of_text` is the id that begins and ends texts, and `pad` the one that fills
    them up and that a decoder with a source begins with. A ConfigError says, family by family, what cannot be
    expressed. Tied weights appear once. Tensors may share memory with `model`.
    """
    family = family_for(config, model_type)
    state = model.state_dict() if isinstance(model, Transformer) else model
    rules.check_tensors(rules.shapes_of(config), state, "the model's state")
    theirs = rules.to_theirs(family, config, state)
    dtype = str(next(iter(theirs.values())).dtype).removeprefix("torch.")
    return theirs, family.write_config(config) | _token_ids(config, end_of_text, pad) | {"torch_dtype": dtype}


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
    config = family.read_state(config, state)
    rules.check_number(config, state, where)
    theirs = _tidy(family, config, state, where)
    rules.check_tensors(rules.expected(family, config), theirs, where)
    return config, rules.to_ours(family, config, theirs)


def _token_ids(config: ModelConfig, end_of_text: int | None, pad: int | None) -> dict[str, Any]:
    """Return every id that their config names by what we have, one token that begins and ends texts, one that fills up.

    None must be said where there is none, since their defaults may lie beyond the vocabulary.
    """
    pad = end_of_text if pad is None else pad
    ids = dict.fromkeys(("bos_token_id", "eos_token_id"), end_of_text)
    if config.architecture == "encoder":
        ids |= dict.fromkeys(("cls_token_id", "sep_token_id"), end_of_text) | {"pad_token_id": pad}
    elif config.architecture == "encoder_decoder":
        ids |= {"pad_token_id": pad, "decoder_start_token_id": pad or 0, "forced_eos_token_id": None}
    return ids


def family_for(config: ModelConfig, model_type: str | None = None) -> rules.Family:
    """The family that a model of `config` is exported as; a ConfigError says why there is none."""
    candidates = BY_ARCHITECTURE[config.architecture] if model_type is None else [_family_named(model_type)]
    problems = {family.model_type: family.problems(config) for family in candidates}
    for family in candidates:
        if not problems[family.model_type]:
            return family
    closest = sorted(problems, key=lambda name: len(problems[name]))
    refusals = "; ".join(f"{name} cannot express {', '.join(problems[name])}" for name in closest)
    raise ConfigError(
        f"no Hugging Face format for this model: {refusals}. Trained with what {closest[0]} has, a model can be exported."
    )


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
        family.full_name(name, bare=bare and name != family.head): tensor for name, tensor in state.items()
    }
    wanted = rules.expected(family, config)
    if config.tie_embeddings and family.head in full:
        head, tokens = full.pop(family.head), full.get(family.base + family.tokens)
        if tokens is not None and not torch.equal(head, tokens):
            raise CheckpointError(
                f"{where}: {family.head} differs from the embedding that it should be tied to"
            )
    for name in [name for name in full if name not in wanted and re.fullmatch(family.zeros, name)]:
        if full.pop(name).count_nonzero():
            raise CheckpointError(f"{where}: {name} is not zero, and the model has no part for it")
    return {
        name: tensor
        for name, tensor in full.items()
        if name in wanted or not re.fullmatch(family.ignored, name)
    }
