"""What is trained beside a frozen model, as a composition over its linear layers."""

from llm.adapter.lora import Lora, LowRank, fresh, layers, merged, without_adapters
from llm.adapter.switched import Adapted, Changes, Switched, attach, using

__all__ = [
    "Adapted",
    "Changes",
    "Lora",
    "LowRank",
    "Switched",
    "attach",
    "fresh",
    "layers",
    "merged",
    "using",
    "without_adapters",
]
