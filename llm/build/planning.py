"""A training step of a config, to be traced before anything is trained."""

import functools
import math

from llm.build.models import model
from llm.build.nodes import Config
from llm.build.tasks import objective
from llm.build.training import optimizer
from llm.data.collators.base import SampleCost
from llm.model import ModelConfig
from llm.plan import Layout, TrainingStep, blanks


def traced_step(
    config: Config,
    model_config: ModelConfig,
    laid_out: Layout,
    precision: str,
    sample_cost: SampleCost,
    micro_batch_size: int,
) -> TrainingStep:
    """A training step of the config, to be traced; each process does its share of data.batch_size."""
    activation_checkpointing = config["activation_checkpointing"]
    patterns = [
        n for n in (activation_checkpointing, model_config.global_attention_every) if isinstance(n, int)
    ]
    return TrainingStep(
        model=functools.partial(model, config),
        model_config=model_config,
        layout=laid_out,
        objective=objective(config),
        optimizer=optimizer(config, laid_out.parallelism),
        precision=precision,
        work=sample_cost.mean,
        batches=functools.partial(blanks, sample_cost),
        micro_batch_size=micro_batch_size,
        accumulation=max(1, config["data"]["batch_size"] // (laid_out.data_parallel_size * micro_batch_size)),
        pattern_length=math.lcm(*patterns),
    )
