"""What is trained beside a frozen model, as a composition over its linear layers."""

from llm.adapter.frozen import frozen_bytes, n_values
from llm.adapter.lora import Lora, LowRank, begun, layers, merged

__all__ = ["Lora", "LowRank", "begun", "frozen_bytes", "layers", "merged", "n_values"]
