"""The one place that turns config into objects; each function takes a checked, plain config and gives one thing."""

from llm.build.corpora import check_mixes, cleaning_steps, corpus, source, sources_of
from llm.build.inference import (
    Usable,
    adapted_model,
    for_inference,
    trained_model,
    usable_model,
    usable_models,
)
from llm.build.models import adapter, check_installed, check_layout, model
from llm.build.nodes import Config, instantiate
from llm.build.origins import Origin, origin, read_origin
from llm.build.planning import traced_step
from llm.build.tasks import (
    check_reference,
    collator,
    compares,
    model_config_for,
    objective,
    with_reference_log_probabilities,
)
from llm.build.tokenizers import FixedTokenizer, stand_in, tokenizer_spec
from llm.build.training import (
    checkpointer,
    datamodule,
    hang_watch,
    loggers,
    meter,
    module,
    part_losses,
    progress,
    trainer,
)

__all__ = [
    "Config",
    "FixedTokenizer",
    "Origin",
    "Usable",
    "adapted_model",
    "adapter",
    "check_installed",
    "check_layout",
    "check_mixes",
    "check_reference",
    "checkpointer",
    "cleaning_steps",
    "collator",
    "compares",
    "corpus",
    "datamodule",
    "for_inference",
    "hang_watch",
    "instantiate",
    "loggers",
    "meter",
    "model",
    "model_config_for",
    "module",
    "objective",
    "origin",
    "part_losses",
    "progress",
    "read_origin",
    "source",
    "sources_of",
    "stand_in",
    "tokenizer_spec",
    "traced_step",
    "trained_model",
    "trainer",
    "usable_model",
    "usable_models",
    "with_reference_log_probabilities",
]
