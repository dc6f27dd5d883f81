"""Mistral as Hugging Face writes it: Llama's layout, where a position sees a window of those before it."""

from llm.hub.llama import CONSTANTS, DEFAULTS, KEYS, LAYER_RULES, RULES, read_rope, write_rope
from llm.hub.rules import Family, Layers

MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    keys={key: names for key, names in KEYS.items() if key != "attention_bias"}
    | {"attention_window": ("sliding_window",)},
    constants=CONSTANTS,
    required={},
    defaults=DEFAULTS | {"num_key_value_heads": 8, "sliding_window": 4096},
    activation_key="hidden_act",
    activations={"silu": "swiglu"},
    base="model.",
    tokens="embed_tokens.weight",
    rules=RULES,
    layers=(Layers("model.layers.{}", "stack.blocks.{}", LAYER_RULES),),
    ignored=r".*\.rotary_emb\.inv_freq",
    write_more=write_rope,
    read_more=read_rope,
)
