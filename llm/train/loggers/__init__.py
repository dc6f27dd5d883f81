"""Where figures go: metrics.csv always, Weights & Biases and TensorBoard beside it."""

from llm.train.loggers.base import LoggedRun, RunLogger
from llm.train.loggers.metrics_csv import COLUMNS, MetricsCSV
from llm.train.loggers.tensorboard import TensorBoard
from llm.train.loggers.wandb import WandB

__all__ = ["COLUMNS", "LoggedRun", "MetricsCSV", "RunLogger", "TensorBoard", "WandB"]
