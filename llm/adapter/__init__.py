"""What is trained beside a frozen model, as a composition over its linear layers."""

from llm.adapter.frozen import KINDS, Coded, Frozen, frozen_bytes, n_values
from llm.adapter.lora import Decomposed, Lora, LowRank, initial_weights, layers, merged, without_adapters
from llm.adapter.switched import Adapted, Changes, Switched, attach, is_attachable, using

__all__ = [
    "KINDS",
    "Adapted",
    "Changes",
    "Coded",
    "Decomposed",
    "Frozen",
    "Lora",
    "LowRank",
    "Switched",
    "attach",
    "frozen_bytes",
    "initial_weights",
    "is_attachable",
    "layers",
    "merged",
    "n_values",
    "using",
    "without_adapters",
]
