"""Qwen3 as Hugging Face writes it: Llama's layout with normalised queries and keys."""

import dataclasses

from llm.errors import ConfigError
from llm.hub.llama import DEFAULTS, KEYS, LAYER_RULES, LLAMA, read_rope
from llm.hub.rules import Layers, Rule, Values


def read_qwen(theirs: Values) -> Values:
    """Return our rotary keys, once no layer looks through a window."""
    types = theirs.get("layer_types") or []
    if not isinstance(types, list):
        raise ConfigError(f"layer_types={types!r} must be a list")
    kinds = {str(kind) for kind in types} - {"full_attention"}
    if kinds:
        raise ConfigError(
            f"layer_types with {', '.join(sorted(kinds))} are not supported, only full_attention"
        )
    return read_rope(theirs)


NORM_RULES = (
    Rule("self_attn.q_norm", "attention.query_norm"),
    Rule("self_attn.k_norm", "attention.key_norm"),
)

QWEN3 = dataclasses.replace(
    LLAMA,
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    keys=KEYS,
    constants={**LLAMA.constants, "qk_norm": True},
    required={"use_sliding_window": False},
    defaults=DEFAULTS | {"head_dim": 128},
    layers=(Layers("model.layers.{}", "stack.blocks.{}", (*LAYER_RULES, *NORM_RULES)),),
    read_more=read_qwen,
    limits=lambda config: [],
)
