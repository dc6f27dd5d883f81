"""Qwen2 as Hugging Face writes it: Llama's layout with biases on queries, keys and values."""

from llm.hub.llama import CONSTANTS, DEFAULTS, KEYS, LAYER_RULES, RULES, undivided_heads, write_rope
from llm.hub.qwen3 import read_qwen
from llm.hub.rules import Family, Layers

QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    keys={key: names for key, names in KEYS.items() if key not in ("attention_bias", "head_dim")},
    constants=CONSTANTS | {"attention_bias": True, "attention_output_bias": False},
    required={"use_sliding_window": False},
    defaults=DEFAULTS,
    activation_key="hidden_act",
    activations={"silu": "swiglu"},
    base="model.",
    tokens="embed_tokens.weight",
    rules=RULES,
    layers=(Layers("model.layers.{}", "stack.blocks.{}", LAYER_RULES),),
    ignored=r".*\.rotary_emb\.inv_freq",
    write_more=write_rope,
    read_more=read_qwen,
    limits=undivided_heads,
)
