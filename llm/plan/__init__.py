"""What training will take, worked out before anything is trained."""

from llm.plan.disk import checkpoint_bytes, kept_checkpoints
from llm.plan.memory import Memory, state_bytes, training_memory, whole_context
from llm.plan.time import TYPICAL_MFU, training_seconds

__all__ = [
    "TYPICAL_MFU",
    "Memory",
    "checkpoint_bytes",
    "kept_checkpoints",
    "state_bytes",
    "training_memory",
    "training_seconds",
    "whole_context",
]
