"""The one transformer: torch only, composed of small parts."""

from llm.model.cache import Cache, CachePool, KVCache
from llm.model.config import ModelConfig, RopeScaling
from llm.model.flops import flops_per_token, least_parameters, parameter_count, sequence_flops
from llm.model.init import init_weights, initial_value
from llm.model.transformer import Transformer

__all__ = [
    "Cache",
    "CachePool",
    "KVCache",
    "ModelConfig",
    "RopeScaling",
    "Transformer",
    "flops_per_token",
    "init_weights",
    "initial_value",
    "least_parameters",
    "parameter_count",
    "sequence_flops",
]
