"""What training will take, worked out before anything is trained."""

from llm.plan.batches import blanks, blanks_like, whole_context
from llm.plan.disk import checkpoint_bytes, kept_checkpoints
from llm.plan.hardware import Hardware
from llm.plan.layout import Layout
from llm.plan.ledger import Memory
from llm.plan.search import Choice, Planned, Planner
from llm.plan.time import (
    OPTIMAL_TOKENS,
    TYPICAL_MFU,
    compute_optimal,
    data_link,
    messages,
    step_flops,
    tensor_link,
    training_seconds,
)
from llm.plan.trace import Trace, TrainingStep, trace

__all__ = [
    "OPTIMAL_TOKENS",
    "TYPICAL_MFU",
    "Choice",
    "Hardware",
    "Layout",
    "Memory",
    "Planned",
    "Planner",
    "Trace",
    "TrainingStep",
    "blanks",
    "blanks_like",
    "checkpoint_bytes",
    "compute_optimal",
    "data_link",
    "kept_checkpoints",
    "messages",
    "step_flops",
    "tensor_link",
    "trace",
    "training_seconds",
    "whole_context",
]
