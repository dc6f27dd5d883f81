"""What training will take, worked out before anything is trained."""

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
from llm.plan.trace import Trace, TrainingStep, blank, blank_like, trace, whole_context

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
    "blank",
    "blank_like",
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
