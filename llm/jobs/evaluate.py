"""`llm evaluate`: score a run on its validation split, or on all of another set."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from llm import build
from llm.build import Config
from llm.data import Corpus
from llm.data.collate import Collator
from llm.errors import ConfigError, DataError
from llm.evaluation import EVALUATIONS, Result, Subject
from llm.jobs.show import show_entries
from llm.model import Transformer
from llm.tokenizer import load_tokenizer
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
        folder,
        split,
        config["seed"],
        config["batch_size"],
    )


def _own_collator(run: Run, config: Config, net: Transformer, corpus: Corpus) -> Collator:
    """What made the run's batches; its own config names it, among our classes alone."""
    if not isinstance(task := run.config.get("task"), dict):
        raise DataError(f"{run.folder}/config.yaml says nothing of the run's task.")
    return build.collator({**config, "task": task}, corpus.tokenizer, net.config)


def evaluations(
    names: Iterable[str],
    net: Transformer,
    corpus: Corpus,
    collator: Callable[[], Collator],
    checkpoint: Path,
    split: str,
    seed: int,
    batch_size: int = BATCH_SIZE,
) -> list[Entry]:
    """The entries of evaluation.json for `names`, scored on the corpus's held-out stream.

    Raises:
        ConfigError: there is no evaluation of a name.
        DataError: nothing is held out.
    """
    if len(corpus.validation) < 2:
        raise DataError(f"{corpus.folder} holds nothing out to score on: raise data.validation_share.")
    subject = Subject(net, corpus.tokenizer, corpus.validation, collator, batch_size, seed)
    results = {name: evaluation(subject) for name, evaluation in named(names).items()}
    return [
        {
            "evaluation": name,
            "data": corpus.name,
            "split": split,
            "metrics": result.metrics,
            "examples": result.examples,
            "checkpoint": checkpoint.name,
        }
        for name, result in results.items()
    ]


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


def _own_corpus(run: Run) -> Corpus:
    """The corpus that the run was trained on, where it was prepared."""
    folder = Path(str(run.begun["data"].get("folder")))
    try:
        corpus = Corpus.open(folder)
    except DataError as error:
        raise DataError(
            f"The validation split of {run.folder} is gone. {error} The run's train.py command prepares it again; "
            "data= scores another set."
        ) from None
    corpus.require_tokenizer(load_tokenizer(run.tokenizer).hash)
    return corpus


def _other_corpus(run: Run, config: Config, typed: Collection[str]) -> Corpus:
    """All of the config's `data`, held out, in the run's tokens."""
    own = run.config.get("data") or {}
    keys = [
        key
        for key in ("text", "label")
        if key in config["data"]
        and key in own
        and f"data.{key}" not in typed
        # A column by its number says nothing of one by its name.
        and isinstance(own[key], int) == isinstance(config["data"][key], int)
    ]
    data = {**config["data"], **{key: own[key] for key in keys}, "validation_share": 1.0}
    spec = build.FixedTokenizer(load_tokenizer(run.tokenizer))
    return build.corpus({**config, "data": data}, spec, show=True)
