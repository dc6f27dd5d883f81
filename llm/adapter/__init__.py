"""What is trained beside a frozen model, as a composition over its linear layers."""

from llm.adapter.lora import Lora, LowRank, fresh, layers, merged

__all__ = ["Lora", "LowRank", "fresh", "layers", "merged"]
