"""The config: its keys and their types, the check of a composed one, and the classes that it may name."""

from llm.config.check import Problem, check, filled, find_key, known_keys
from llm.config.composed import Composed
from llm.config.schema import SCHEMAS, EvaluateConfig, GenerateConfig, PrepareConfig, TrainConfig
from llm.config.targets import check_targets, resolve

__all__ = [
    "SCHEMAS",
    "Composed",
    "EvaluateConfig",
    "GenerateConfig",
    "PrepareConfig",
    "Problem",
    "TrainConfig",
    "check",
    "check_targets",
    "filled",
    "find_key",
    "known_keys",
    "resolve",
]
