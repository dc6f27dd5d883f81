"""What a task is made of: its collator and its objective, and what either asks of the model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from llm.build.nodes import Config, collator_class, instantiate, settings
from llm.build.origins import Origin
from llm.data.collators.base import Collator, Setting
from llm.data.collators.preferences import PreferenceCollator
from llm.data.mixture import AnyCorpus
from llm.errors import ConfigError
from llm.files import write_tensors
from llm.model import ModelConfig, Transformer
from llm.objective.cross_entropy import LabelCrossEntropy
from llm.objective.preference import PreferenceLoss
from llm.tokenizer import Tokenizer
from llm.train import checkpoint
from llm.train.hardware import place
from llm.train.reference import reference_log_probabilities

# What a collator has to have, one of somebody's own too; some of it is asked for at the end of training alone.
REQUIRED = ("extra_fields", "given", "longest_tokens", "mean_tokens", "samples")
# What these were called before, and `window_tokens`: a class from then would be taken for one that leaves them as they are.
RENAMED = {
    "cut": "samples",
    "marks": "extra_fields",
    "most": "longest_tokens",
    "window_work": "window_tokens",
    "work": "mean_tokens",
}


def collator(config: Config, tokenizer: Tokenizer, model_config: ModelConfig) -> Collator:
    """What makes batches as the task wants them.

    Raises:
        ConfigError: it lacks a part of `llm.data.collators.base.Collator`, or calls one as it was called before.
    """
    make, keys = collator_class(config), settings(config["task"]["collator"])
    if old := [name for name in RENAMED if hasattr(make, name)]:
        told = ", ".join(f"{name} is {RENAMED[name]} now" for name in old)
        raise ConfigError(
            f"task.collator: {make.__name__} has other names than llm.data.collators.base.Collator: {told}."
        )
    made = make(Setting(tokenizer, config["seed"], model_config), **keys)
    if lacks := [name for name in REQUIRED if not hasattr(made, name)]:
        raise ConfigError(
            f"task.collator: {type(made).__name__} has no {', '.join(lacks)}, which "
            "llm.data.collators.base.Collator asks of each."
        )
    return cast(Collator, made)


def model_config_for(config: Config, found: Origin, corpus: AnyCorpus) -> ModelConfig:
    """The config of the model that is trained: with the tokenizer's vocabulary and what the task asks for, such as labels.

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
    if shaped is None:
        return plain
    model_config: ModelConfig = shaped(plain, corpus.train, corpus.tokenizer)
    scores = objective(config)
    if isinstance(scores, LabelCrossEntropy):
        scores.check_labels(model_config.labels)
    return model_config


def objective(config: Config) -> Any:
    """What scores a batch as the task wants it."""
    return instantiate(config["task"]["objective"], config)


def compares(config: Config) -> bool:
    """Whether the task compares with a reference model, the one that training began with."""
    scores = objective(config)
    return isinstance(scores, PreferenceLoss) and scores.needs_reference


def check_reference(config: Config) -> None:
    """Raise ConfigError where an objective compares with a reference model and there is none."""
    if compares(config) and config["init_from"] is None:
        raise ConfigError(
            "task=dpo compares with a reference model, which training also starts from: give one by init_from=."
        )


def with_reference_log_probabilities(
    collate: Collator,
    config: Config,
    corpus: AnyCorpus,
    reference: Callable[[], Origin],
    kept: Path | None,
) -> Collator:
    """The collator that tells log-probabilities of answers under the reference model, the one that training began with.

    It is `collate` itself where nothing is compared with that model.

    Args:
        collate: what makes the batches; of the context that the model is trained with.
        config: names the objective, which may compare with no reference model.
        corpus: the corpus, all of whose answers are read.
        reference: gives the reference model, of the same context; it is asked where nothing is kept.
        kept: the file that keeps what was computed, by stream; None to compute it anew.
    """
    if not isinstance(collate, PreferenceCollator) or not compares(config):
        return collate
    if kept is not None and kept.exists():
        found = {name: tensor.numpy() for name, tensor in checkpoint.load_tensors(kept).items()}
    else:
        found = _by_stream(collate, corpus, reference())
        if kept is not None:
            write_tensors(kept, {name: torch.from_numpy(array) for name, array in found.items()})
    return collate.with_reference(found)


def _by_stream(collate: Collator, corpus: AnyCorpus, reference: Origin) -> dict[str, np.ndarray]:
    """The log-probabilities (n, 2) of all answers under the reference model, by stream."""
    net = Transformer(reference.model_config)
    checkpoint.load_weights(net, reference.weights, Path("init_from"))
    place(net.eval())
    (whole,) = corpus.corpora.values()
    streams = [stream for stream in (whole.train, whole.validation) if len(stream)]
    return {stream.name: reference_log_probabilities(net, stream, collate) for stream in streams}
