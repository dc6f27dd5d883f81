"""What a batch is scored by: one objective a file, each paired with its collator by conf/task."""

from llm.objective.loss import Loss, Rows

__all__ = ["Loss", "Rows"]
