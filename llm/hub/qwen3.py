"""Qwen3 as Hugging Face writes it: Llama's layout with normalised queries and keys."""

from llm.errors import ConfigError
from llm.hub.llama import CONSTANTS, DEFAULTS, KEYS, LAYER_RULES, RULES, read_rope, write_rope
from llm.hub.rules import Family, Layers, Rule, Values


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

QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    keys=KEYS,
    constants=CONSTANTS | {"qk_norm": True},
    required={"use_sliding_window": False},
    defaults=DEFAULTS | {"head_dim": 128},
    activation_key="hidden_act",
    activations={"silu": "swiglu"},
    base="model.",
    tokens="embed_tokens.weight",
    rules=RULES,
    layers=(Layers("model.layers.{}", "stack.blocks.{}", (*LAYER_RULES, *NORM_RULES)),),
    ignored=r".*\.rotary_emb\.inv_freq",
    write_more=write_rope,
    read_more=read_qwen,
)
