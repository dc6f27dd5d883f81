"""What training will take, worked out before anything is trained."""

from llm.plan.batches import blanks, blanks_like, whole_context
from llm.plan.disk import checkpoint_bytes, kept_checkpoints
from llm.plan.hardware import Hardware
from llm.plan.layout import Layout
from llm.plan.ledger import Memory
from llm.plan.search import Choice, Planned, Planner
from llm.plan.time import (
    MATMUL_EFFICIENCY,
    OPTIMAL_TOKENS,
    compute_optimal,
    data_link,
    messages,
    pace,
    step_flops,
    tensor_link,
)
from llm.plan.trace import Trace, TrainingStep, trace

__all__ = [
    "MATMUL_EFFICIENCY",
    "OPTIMAL_TOKENS",
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
    "pace",
    "step_flops",
    "tensor_link",
    "trace",
    "whole_context",
]
