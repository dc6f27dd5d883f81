"""Models that aren't ours, scored beside our own: what is asked of them, and where what they answer is kept."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm import build
from llm.build import Config
from llm.data.documents import Document, LeftOut, Source
from llm.data.documents.bio import words_and_tags
from llm.data.files.inputs import InputFiles
from llm.errors import ConfigError
from llm.evaluation import Result
from llm.evaluation.api import Endpoint
from llm.evaluation.google import (
    GoogleLanguage,
    judged_labels,
    kinds_of,
    label_of_categories,
    label_of_sentiment,
    tags_of_entities,
)
from llm.evaluation.harness import Tasks, check, run_tasks
from llm.evaluation.tagging import tag_result
from llm.jobs.scored import Scored
from llm.train.run import Run

HARNESS = "lm_eval"
LABELS, TAGS = "classification", "tagging"
BY_LETTER = "choices are named by their letters, since endpoints tell no likelihoods"


@dataclass(frozen=True)
class Baseline:
    """A model of others.

    Args:
        label: what it is called beside runs.
        run: a folder that holds its results as a run's does.
        ask: asks it, and scores what it answers.
        cost: says what was asked, once that is done.
    """

    label: str
    run: Run
    ask: Callable[[], list[Scored]]
    cost: Callable[[], str]


def baseline(config: Config) -> Baseline:
    """What the config's `model` names, ready to be asked.

    Raises:
        ConfigError: it can't be asked so; nothing was asked yet.
    """
    folder = Path(config["answers_dir"])
    return {"api": _endpoint, "google_nl": _google}[config["model"]](config, folder)


def _endpoint(config: Config, folder: Path) -> Baseline:
    _check_names(config, HARNESS, "tasks alone")
    tasks = Tasks(**config[HARNESS])
    check(tasks)
    keys = dict(config["api"])
    answer_tokens = keys.pop("answer_tokens")
    endpoint = Endpoint(answers=folder / "kept", **keys)

    def ask() -> list[Scored]:
        from llm.evaluation.api_model import ApiModel

        model = ApiModel(endpoint, answer_tokens=answer_tokens, seed=config["seed"])
        results = run_tasks(model, tasks, config["seed"])
        if model.n_guessed:
            print(f"{model.n_guessed:,} answers named no choice, and count as guesses.")
        found = [
            Scored.of(HARNESS, name, shots(config), endpoint.model, result)
            for name, result in results.items()
        ]
        return [Scored({**one.entry, "asked": BY_LETTER}, one.rows) for one in found]

    name = re.sub(r"[^\w.-]+", "_", endpoint.model)
    return Baseline(endpoint.model, Run(folder / name), ask, endpoint.cost)


def _google(config: Config, folder: Path) -> Baseline:
    keys = dict(config["google_nl"])
    task, within, named = (keys.pop(name) for name in ("task", "neutral_within", "kinds"))
    evaluation = TAGS if task == "entities" else LABELS
    _check_names(config, evaluation, "tags of words alone" if task == "entities" else "labels of texts alone")
    if config["data"] is None:
        raise ConfigError("model=google_nl: it needs texts with labels: data=jsonl data.paths= data.label=.")
    meant = {name: keys.pop(name) for name in ("positive", "negative", "neutral")}
    service = GoogleLanguage(answers=folder / "kept", **keys)

    def result() -> Result:
        if task == "entities":
            sentences, tags = _tagged_sentences(config)
            labels = {tag for some in tags for tag in some}
            kinds = kinds_of(labels, named)
            texts = [" ".join(words) for words in sentences]
            answers = service.entities(texts)
            predicted = [tags_of_entities(*pair, kinds) for pair in zip(sentences, answers, strict=True)]
            return tag_result(sorted(labels), texts, tags, predicted)
        texts, targets = _labelled_texts(config)
        if task == "sentiment":
            _check_labels(targets, [label for label in meant.values() if label])
            answers = service.sentiment(texts)
            told = [label_of_sentiment(answer, meant, within) for answer in answers]
        else:
            answers = service.categories(texts)
            told = [label_of_categories(answer, sorted({*targets})) for answer in answers]
        return judged_labels(texts, targets, told, answers)

    def ask() -> list[Scored]:
        return [Scored.of(evaluation, _source(config).corpus_name, "all", "google_nl", result())]

    return Baseline("google_nl", Run(folder / "google_nl"), ask, service.cost)


def _check_names(config: Config, name: str, what: str) -> None:
    if set(names := config["eval"] or [name]) != {name}:
        raise ConfigError(f"eval={', '.join(names)}: model={config['model']} answers {what}, eval={name}.")


def _check_labels(targets: Iterable[str], known: Sequence[str]) -> None:
    if strange := sorted({*targets} - {*known}):
        raise ConfigError(
            f"google_nl: the texts have the label {strange[0]!r}, and sentiments mean {', '.join(known)}: set "
            "google_nl.positive, google_nl.negative and google_nl.neutral to the texts' labels."
        )


def _source(config: Config) -> Source:
    """The config's `data`; the service reads its texts as they are, by no task's template."""
    return build.source(config["data"], {**config, "task": {"template": None}})


def _documents(config: Config) -> list[Document]:
    """The documents of the config's `data` in the order of its files, each once, as a run reads them."""
    pieces = _source(config).plan(InputFiles()).pieces
    found = (document for piece in pieces for document in piece.documents(LeftOut()) if document.data)
    return list({document.digest: document for document in found}.values())


def _tagged_sentences(config: Config) -> tuple[list[list[str]], list[list[str]]]:
    """The sentences of the config's `data`, as words, and their tags."""
    found = [words_and_tags(document.data) for document in _documents(config)]
    pairs = [pair for pair in found if pair is not None]
    if not pairs or len(pairs) < len(found):
        raise ConfigError(
            "google_nl.task=entities: it needs words with tags: data=conll, or data=jsonl with lists in data.text and data.label."
        )
    sentences, tags = zip(*pairs, strict=True)
    return list(sentences), list(tags)


def _labelled_texts(config: Config) -> tuple[list[str], list[str]]:
    """The texts of the config's `data` and their labels."""
    sides = [document.sides for document in _documents(config)]
    if not sides or any(len(one) != 2 for one in sides):
        raise ConfigError(
            "model=google_nl: it needs texts with labels; data.label= names the field with the label."
        )
    texts, labels = zip(*sides, strict=True)
    return list(texts), list(labels)


def shots(config: Config) -> str:
    """Which of a task's figures these are: they depend on how many examples were shown, and how many asked."""
    shown, limit = config[HARNESS]["num_fewshot"], config[HARNESS]["limit"]
    parts = [f"{shown}-shot" if shown is not None else "", f"first {limit}" if limit else ""]
    return ", ".join(part for part in parts if part) or "all"
