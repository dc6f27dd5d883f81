"""Mistral as Hugging Face writes it: Llama's layout, where a position sees a window of those before it."""

import dataclasses

from llm.hub.llama import DEFAULTS, KEYS, LLAMA

MISTRAL = dataclasses.replace(
    LLAMA,
    model_type="mistral",
    architecture="MistralForCausalLM",
    keys={key: names for key, names in KEYS.items() if key != "attention_bias"}
    | {"attention_window": ("sliding_window",)},
    defaults=DEFAULTS | {"num_key_value_heads": 8, "sliding_window": 4096},
    limits=lambda config: [],
)
