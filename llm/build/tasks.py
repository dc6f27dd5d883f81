"""What a task is made of: its collator and its objective, and what either asks of the model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from llm.build.nodes import Config, collator_class, instantiate, settings
from llm.build.origins import Origin
from llm.data import Corpus
from llm.data.collators.base import Collator, Setting
from llm.data.collators.preferences import PreferenceCollator
from llm.data.mixture import Mixture
from llm.errors import ConfigError
from llm.evaluation.preferences import reference_scores
from llm.files import write_tensors
from llm.model import ModelConfig, Transformer
from llm.objective.cross_entropy import LabelCrossEntropy
from llm.objective.preference import PreferenceLoss
from llm.tokenizer import Tokenizer
from llm.train import checkpoint
from llm.train.hardware import place

# What a collator has to tell, one of somebody's own too; some of it is asked for at the end of training alone.
TOLD = ("given", "marks", "most", "view", "work")


def collator(config: Config, tokenizer: Tokenizer, shape: ModelConfig) -> Collator:
    """What makes batches as the task wants them.

    Raises:
        ConfigError: it lacks a part of `llm.data.collators.base.Collator`.
    """
    make, keys = collator_class(config), settings(config["task"]["collator"])
    made = make(Setting(tokenizer, config["seed"], shape), **keys)
    if lacks := [name for name in TOLD if not hasattr(made, name)]:
        raise ConfigError(
            f"task.collator: {type(made).__name__} has no {', '.join(lacks)}, which "
            "llm.data.collators.base.Collator asks of each."
        )
    return cast(Collator, made)


def shape_for(config: Config, found: Origin, corpus: Corpus | Mixture) -> ModelConfig:
    """The shape of the model that is trained: with the tokenizer's vocabulary and what the task asks for, such as labels.

    Raises:
        ConfigError: the objective weighs labels that the corpus doesn't have.
    """
    plain = dataclasses.replace(
        found.sized(corpus.vocab_size),
        prefix_lm=False,
        labels=(),
        labelled="text",
        number_mean=0.0,
        number_std=1.0,
    )
    shaped = getattr(collator_class(config), "shaped", None)
    # A mixture is of plain text or pairs, whose tasks ask for nothing.
    if shaped is None or isinstance(corpus, Mixture):
        return plain
    shape: ModelConfig = shaped(plain, corpus.train, corpus.tokenizer)
    scores = objective(config)
    if isinstance(scores, LabelCrossEntropy):
        scores.check_labels(shape.labels)
    return shape


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


def refer(
    collate: Collator,
    config: Config,
    corpus: Corpus | Mixture,
    first: Callable[[], Origin],
    kept: Path | None,
) -> None:
    """Tell a collator of preferences what the model that training began with says of all answers; others need nothing.

    Args:
        collate: what makes the batches; of the context that the model is trained with.
        config: names the objective, which may compare with no first model.
        corpus: the corpus, all of whose answers are read.
        first: gives that model, of the same context; it is asked where nothing is kept.
        kept: the file that keeps what was computed, by stream; None to compute it anew.
    """
    # A mixture has no preferences.
    if not isinstance(collate, PreferenceCollator) or isinstance(corpus, Mixture) or not compares(config):
        return
    if kept is not None and kept.exists():
        found = {name: tensor.numpy() for name, tensor in checkpoint.load_tensors(kept).items()}
    else:
        found = _references(collate, corpus, first())
        if kept is not None:
            write_tensors(kept, {name: torch.from_numpy(array) for name, array in found.items()})
    collate.references.update(found)


def _references(collate: Collator, corpus: Corpus, start: Origin) -> dict[str, np.ndarray]:
    """The log-probabilities (n, 2) of all answers under the first model, by stream."""
    net = Transformer(start.shape)
    checkpoint.load_weights(net, start.weights, Path("init_from"))
    place(net.eval())
    streams = [stream for stream in (corpus.train, corpus.validation) if len(stream)]
    return {stream.name: reference_scores(net, stream, collate) for stream in streams}
