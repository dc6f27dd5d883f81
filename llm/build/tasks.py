"""What a task is made of: its collator and its objective, and what either asks of the model."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from llm.build.nodes import Config, collator_class, instantiate, settings
from llm.build.origins import Origin
from llm.data import Corpus
from llm.data.collators.base import Collator, Setting
from llm.data.collators.labels import LabelCollator
from llm.data.collators.prefix import PrefixCollator
from llm.data.mixture import Mixture
from llm.errors import ConfigError
from llm.evaluation.preferences import reference_scores
from llm.files import write_tensors
from llm.model import ModelConfig, Transformer
from llm.objective.preference import PreferenceLoss
from llm.tokenizer import Tokenizer
from llm.train import checkpoint
from llm.train.hardware import place


def collator(config: Config, tokenizer: Tokenizer, shape: ModelConfig) -> Collator:
    """What makes batches as the task wants them."""
    make, keys = collator_class(config), settings(config["task"]["collator"])
    return cast(Collator, make(Setting(tokenizer, config["seed"], shape), **keys))


def shape_for(config: Config, found: Origin, text: Corpus | Mixture) -> ModelConfig:
    """The shape of the model that is trained: with the tokenizer's vocabulary and, of labelled texts, their labels."""
    make = collator_class(config)
    shape = dataclasses.replace(found.sized(text.vocab_size), prefix_lm=make is PrefixCollator)
    # A mixture has no labels.
    if isinstance(text, Mixture) or not (isinstance(make, type) and issubclass(make, LabelCollator)):
        return dataclasses.replace(shape, labels=(), labelled="text", number_mean=0.0, number_std=1.0)
    return make.headed(shape, text.train, text.tokenizer)


def objective(config: Config) -> Any:
    """What scores a batch as the task wants it."""
    return instantiate(config["task"]["objective"], config)


def compares(config: Config) -> bool:
    """Whether the task compares a model with the one that training began with."""
    scores = objective(config)
    return isinstance(scores, PreferenceLoss) and scores.needs_reference


def check_reference(config: Config) -> None:
    """Raise ConfigError where an objective compares with a first model and there is none."""
    if compares(config) and config["init_from"] is None:
        raise ConfigError("task=dpo compares with the model that it starts from: give one by init_from=.")


def references(config: Config, start: Origin, text: Corpus | Mixture, path: Path) -> dict[str, np.ndarray]:
    """What the first model says of all answers, by stream: computed once, and kept at `path`; empty where none is needed."""
    if not compares(config) or isinstance(text, Mixture):  # which has no preferences
        return {}
    if not path.exists():
        net = Transformer(start.shape)
        checkpoint.load_weights(net, start.weights, Path("init_from"))
        place(net.eval())
        collate = collator(config, text.tokenizer, start.shape)
        streams = [stream for stream in (text.train, text.validation) if len(stream)]
        scores = {stream.name: reference_scores(net, stream, collate) for stream in streams}
        write_tensors(path, {name: torch.from_numpy(array) for name, array in scores.items()})
    return {name: tensor.numpy() for name, tensor in checkpoint.load_tensors(path).items()}
