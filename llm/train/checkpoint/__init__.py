"""Checkpoints: one folder each, named by its step, whole or absent, checked before it is believed.

step_00000060/
  model.safetensors          weights by canonical name; of a model that is split, shards in a folder model/
  optimizer.safetensors      optimizer state as <parameter name>/<state name>; likewise
  rng_00000.safetensors      one for each rank
  manifest.json              written last: what the checkpoint is, and the SHA-256 of every other file

Whatever strategy wrote it, any other goes on from it: tensors are found by name, and read in the reader's layout.
"""

from llm.train.checkpoint.finding import expendable, find, folders, newest, step_of
from llm.train.checkpoint.manifest import (
    MANIFEST,
    MODEL,
    MODEL_FILE,
    OPTIMIZER,
    OPTIMIZER_FILE,
    Manifest,
    read_manifest,
    verify,
)
from llm.train.checkpoint.model import (
    adapter_of,
    check_names,
    check_values,
    load_tensors,
    load_weights,
    read_model,
    read_parts,
    restore_weights,
    weights,
)
from llm.train.checkpoint.optimizer import (
    load_optimizer_state,
    optimizer_state,
    other_optimizer,
)
from llm.train.checkpoint.rng import random_state, set_random_state
from llm.train.checkpoint.state import TrainingState
from llm.train.checkpoint.writer import CheckpointWriter, folder_name, remove, rng_file

__all__ = [
    "MANIFEST",
    "MODEL",
    "MODEL_FILE",
    "OPTIMIZER",
    "OPTIMIZER_FILE",
    "CheckpointWriter",
    "Manifest",
    "TrainingState",
    "adapter_of",
    "check_names",
    "check_values",
    "expendable",
    "find",
    "folder_name",
    "folders",
    "load_optimizer_state",
    "load_tensors",
    "load_weights",
    "newest",
    "optimizer_state",
    "other_optimizer",
    "random_state",
    "read_manifest",
    "read_model",
    "read_parts",
    "remove",
    "restore_weights",
    "rng_file",
    "set_random_state",
    "step_of",
    "verify",
    "weights",
]
