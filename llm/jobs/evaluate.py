"""`llm evaluate`: score a run on its validation split, or on all of another set."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from llm import build
from llm.build import Config
from llm.data import Corpus
from llm.data.collate import Collator
from llm.data.mixture import Mixture, open_text
from llm.data.preferences import PreferenceCollator
from llm.errors import ConfigError, DataError
from llm.evaluation import EVALUATIONS, Result, Subject
from llm.evaluation.preferences import reference_scores
from llm.jobs.show import show_entries
from llm.model import Transformer
from llm.tokenizer import load_tokenizer
from llm.train.checkpoint import load_tensors
from llm.train.run import Run

BATCH_SIZE = 16

Entry = dict[str, Any]


def run(config: Config, choices: dict[str, Any], typed: Collection[str] = ()) -> int:
    """Evaluate each run that `config` names; returns the exit code.

    The keys that the user `typed` count as meant; text and label keys that are not among them come from the run.
    """
    names = config["run"] if isinstance(config["run"], list) else [config["run"]]
    runs = [Run.open(name) for name in names]
    for one in runs:
        entries = _evaluate(one, config, typed)
        one.append_evaluation(entries)
        show_entries(str(one.folder), entries)
    return 0


def _evaluate(run: Run, config: Config, typed: Collection[str]) -> list[Entry]:
    net, folder = build.trained_model(run, config["checkpoint"])
    corpus = _own_corpus(run) if config["data"] is None else _other_corpus(run, config, typed)
    split = "validation" if config["data"] is None else "all"
    return evaluations(
        config["eval"] or run.config.get("eval") or ["perplexity"],
        net,
        corpus,
        lambda: _own_collator(run, config, net, corpus),
        lambda: build.objective({**config, "task": _task(run)}),
        folder,
        split,
        config["seed"],
        config["batch_size"],
    )


def _own_collator(run: Run, config: Config, net: Transformer, corpus: Corpus | Mixture) -> Collator:
    """What made the run's batches; its own config names it, among our classes alone."""
    config = {**config, "task": _task(run)}
    collate = build.collator(config, corpus.tokenizer, net.config)
    if isinstance(collate, PreferenceCollator):
        collate.references.update(_references(run, config, collate, corpus))
    return collate


def _task(run: Run) -> Config:
    if not isinstance(task := run.config.get("task"), dict):
        raise DataError(f"{run.folder}/config.yaml says nothing of the run's task.")
    return task


def _references(
    run: Run, config: Config, collate: Collator, corpus: Corpus | Mixture
) -> dict[str, np.ndarray]:
    """What the model that the run began with says of all answers; kept with the run for its own corpus."""
    if not build.compares(config) or isinstance(corpus, Mixture):  # which holds plain text alone
        return {}
    if config["data"] is None:
        return {name: tensor.numpy() for name, tensor in load_tensors(run.references).items()}
    first, _ = build.usable_model(str(run.config.get("init_from")), None)
    return {corpus.validation.name: reference_scores(first, corpus.validation, collate)}


def evaluations(
    names: Iterable[str],
    net: Transformer,
    corpus: Corpus | Mixture,
    collator: Callable[[], Collator],
    objective: Callable[[], Any],
    checkpoint: Path,
    split: str,
    seed: int,
    batch_size: int = BATCH_SIZE,
) -> list[Entry]:
    """The entries of evaluation.json for `names`, scored on the held-out stream of the corpus, or of each of a mixture's.

    Raises:
        ConfigError: there is no evaluation of a name.
        DataError: nothing is held out.
    """
    chosen = named(names)
    parts = {name: part for name, part in corpus.parts.items() if len(part.validation) > 1}
    if not parts:
        raise DataError(f"{corpus.name} holds nothing out to score on: raise data.validation_share.")
    entries = []
    for data, part in parts.items():
        subject = Subject(net, part.tokenizer, part.validation, collator, objective, batch_size, seed)
        for name, evaluation in chosen.items():
            result = evaluation(subject)
            entries.append(
                {
                    "evaluation": name,
                    "data": data,
                    "split": split,
                    "metrics": result.metrics,
                    "examples": result.examples,
                    "checkpoint": checkpoint.name,
                }
            )
    return entries


def named(names: Iterable[str]) -> dict[str, Callable[[Subject], Result]]:
    """The evaluations of these names.

    Raises:
        ConfigError: there is none of a name.
    """
    for name in names:
        if name not in EVALUATIONS:
            raise ConfigError(
                f"eval={name}: there is no such evaluation. eval is one or a list of {', '.join(EVALUATIONS)}."
            )
    return {name: EVALUATIONS[name] for name in names}


def _own_corpus(run: Run) -> Corpus | Mixture:
    """The corpus that the run was trained on, where it was prepared."""
    try:
        corpus = open_text(run.begun["data"])
    except DataError as error:
        raise DataError(
            f"The validation split of {run.folder} is gone. {error} The run's train.py command prepares it again; "
            "data= scores another set."
        ) from None
    corpus.require_tokenizer(load_tokenizer(run.tokenizer).hash)
    return corpus


def _other_corpus(run: Run, config: Config, typed: Collection[str]) -> Corpus | Mixture:
    """All of the config's `data`, held out, in the run's tokens."""
    own = run.config.get("data") or {}
    keys = [
        key
        for key in ("text", "label")
        if key in config["data"] and key in own and f"data.{key}" not in typed
    ]
    data = {**config["data"], **{key: own[key] for key in keys}, "validation_share": 1.0}
    spec = build.FixedTokenizer(load_tokenizer(run.tokenizer))
    # A run of an earlier version knows nothing of templates.
    task = {"template": None, **(run.config.get("task") or {})}
    return build.corpus({**config, "data": data, "task": task}, spec, show=True)
