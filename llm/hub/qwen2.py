"""Qwen2 as Hugging Face writes it: Llama's layout with biases on queries, keys and values."""

import dataclasses

from llm.hub.llama import DEFAULTS, KEYS, LLAMA
from llm.hub.qwen3 import read_qwen

QWEN2 = dataclasses.replace(
    LLAMA,
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    keys={key: names for key, names in KEYS.items() if key not in ("attention_bias", "head_dim")},
    constants={**LLAMA.constants, "attention_bias": True, "attention_output_bias": False},
    required={"use_sliding_window": False},
    defaults=DEFAULTS,
    read_more=read_qwen,
)
