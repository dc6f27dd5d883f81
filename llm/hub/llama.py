"""Llama as Hugging Face writes it, with the rotary settings that its relatives share."""

from llm.errors import ConfigError
from llm.hub.rules import Family, Layers, Rule, Values
from llm.model import ModelConfig

# What its relatives say and leave out as Llama does.
KEYS = {
    "d_model": ("hidden_size",),
    "n_layers": ("num_hidden_layers",),
    "n_heads": ("num_attention_heads",),
    "n_kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "d_ff": ("intermediate_size",),
    "context_length": ("max_position_embeddings",),
    "vocab_size": ("vocab_size",),
    "norm_eps": ("rms_norm_eps",),
    "attention_bias": ("attention_bias",),
    "tie_embeddings": ("tie_word_embeddings",),
}
DEFAULTS = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
}
LAYER_RULES = (
    Rule("input_layernorm", "residual.norms.attention"),
    Rule("self_attn.q_proj", "attention.query"),
    Rule("self_attn.k_proj", "attention.key"),
    Rule("self_attn.v_proj", "attention.value"),
    Rule("self_attn.o_proj", "attention.output"),
    Rule("post_attention_layernorm", "residual.norms.feed_forward"),
    Rule("mlp.gate_proj", "feed_forward.gate"),
    Rule("mlp.up_proj", "feed_forward.up"),
    Rule("mlp.down_proj", "feed_forward.down"),
)
# Ours -> theirs.
SCALING_KEYS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_context_length": "original_max_position_embeddings",
}


def write_rope(config: ModelConfig) -> Values:
    """Return their rotary settings, in the form that every version of transformers reads."""
    if config.rope_scaling is None:
        return {"rope_theta": config.rope_theta, "rope_scaling": None}
    ours = config.rope_scaling.to_dict()
    scaling = {their: ours[our] for our, their in SCALING_KEYS.items()}
    return {"rope_theta": config.rope_theta, "rope_scaling": {"rope_type": "llama3", **scaling}}


def read_rope(theirs: Values) -> Values:
    """Return our rotary keys from `rope_scaling` (transformers 4) or `rope_parameters` (5)."""
    rope = {"rope_theta": theirs["rope_theta"]}
    for key in ("rope_scaling", "rope_parameters"):
        settings = theirs.get(key) or {}
        if not isinstance(settings, dict):
            raise ConfigError(f"config.json: {key}={settings!r} must be an object")
        rope |= settings
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigError(
            f"rotary settings {rope} are not supported, only the plain and Llama 3's (rope_type llama3)"
        )
    if kind == "default":
        return {"rope_theta": rope["rope_theta"], "rope_scaling": None}
    missing = [their for their in SCALING_KEYS.values() if their not in rope]
    if missing:
        raise ConfigError(f"rotary settings {rope} lack {', '.join(missing)}")
    return {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {our: rope[their] for our, their in SCALING_KEYS.items()},
    }


def undivided_heads(config: ModelConfig) -> list[str]:
    """Return the complaint of Llama's class about heads that do not divide the width, whatever head_dim says."""
    return [f"n_heads={config.n_heads} (it must divide d_model)"] if config.d_model % config.n_heads else []


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    keys=KEYS | {"mlp_bias": ("mlp_bias",)},
    constants={"norm": "rms", "residual": "pre", "position": "rotary"},
    required={},
    defaults=DEFAULTS | {"mlp_bias": False},
    activation_key="hidden_act",
    activations={"silu": "swiglu"},
    base="model.",
    tokens="embed_tokens.weight",
    rules=(
        Rule("model.embed_tokens", "embedding.tokens"),
        Rule("model.norm", "stack.norm"),
        Rule("lm_head", "unembedding"),
    ),
    layers=(Layers("model.layers.{}", "stack.blocks.{}", LAYER_RULES),),
    ignored=r".*\.rotary_emb\.inv_freq",
    write_more=write_rope,
    read_more=read_rope,
    limits=undivided_heads,
)
