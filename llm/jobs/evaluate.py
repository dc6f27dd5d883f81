"""`llm evaluate`: score runs on their validation splits, on all of another set, or on tasks."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from llm import build
from llm.build import Config
from llm.config import Composed
from llm.data import Corpus
from llm.data.collators.base import Collator
from llm.data.mixture import AnyCorpus, open_text
from llm.errors import ConfigError, DataError
from llm.evaluation import EVALUATIONS, Subject
from llm.evaluation.harness import Tasks, check, run_tasks
from llm.jobs.baseline import HARNESS, baseline, shots
from llm.jobs.scoreboard import boards, show_board
from llm.jobs.scored import Scored, write_outputs
from llm.jobs.show import show_entries
from llm.model import Transformer
from llm.report.compare import labels
from llm.report.scores import write_scores
from llm.tokenizer import Tokenizer, load_tokenizer
from llm.train.run import Run

BATCH_SIZE = 16
PAGE = "evaluation.html"
# Which fields or columns a source reads.
TEXT_KEYS = ("text", "label", "sentence", "rejected", "passage")


def run(composed: Composed) -> int:
    """Evaluate each run that the command names, and compare them; returns the exit code.

    The keys that the user `typed` count as meant; text and label keys that are not among them come from the run.
    """
    config, typed = composed.config, composed.given_keys
    runs = [Run.open(name) for name in _run_names(config)]
    other = baseline(config) if config["model"] else None
    for one in runs:
        check_names(_names(one, config), config)
    found: dict[str, list[Scored]] = {}
    for one, label in zip(runs, labels([one.folder for one in runs]) if runs else [], strict=True):
        found[label] = keep(one, _evaluate(one, config, typed), config["save_outputs"])
        show_entries(str(one.folder), [each.entry for each in found[label]])
    if other is not None:
        found[other.label] = keep(other.run, other.ask(), config["save_outputs"])
        show_entries(
            f"{other.label}, kept in {other.run.folder}", [each.entry for each in found[other.label]]
        )
        print(f"\n{other.cost()}")
    _show_together(found, _page(config, [*runs, *([other.run] if other else [])]))
    return 0


def _run_names(config: Config) -> list[str]:
    names = config["run"] or []
    return names if isinstance(names, list) else [names]


def _names(run: Run, config: Config) -> list[str]:
    """The evaluations that are asked for, or that the run ended with."""
    return config["eval"] or run.config.get("eval") or ["perplexity"]


def _page(config: Config, runs: Sequence[Run]) -> Path:
    """Where the page goes: into the run's folder, or beside several."""
    if config["out"]:
        return Path(config["out"])
    return runs[0].folder / PAGE if len(runs) == 1 else runs[0].folder.parent / PAGE


def _show_together(found: Mapping[str, Sequence[Scored]], page: Path) -> None:
    """Several models beside one another, on the terminal; and the page of them, or of one."""
    together = boards(found)
    if len(found) > 1:
        for board in together:
            show_board(board)
    print(f"\nPage:  {write_scores(together, page)}")


def keep(run: Run, found: Sequence[Scored], outputs: bool) -> list[Scored]:
    """Add entries to the run's evaluation.json and, where wanted, their examples beside it; returns what was added."""
    kept = write_outputs(run.folder, found) if outputs else list(found)
    run.append_evaluation([one.entry for one in kept])
    return kept


def _evaluate(run: Run, config: Config, typed: Collection[str]) -> list[Scored]:
    names = _names(run, config)
    net, folder = build.trained_model(run, config["checkpoint"])
    return [
        *_on_text(run, names, net, folder, config, typed),
        *on_tasks(names, net, load_tokenizer(run.tokenizer), folder.name, config, config["batch_size"]),
    ]


def _on_text(
    run: Run, names: Sequence[str], net: Transformer, folder: Path, config: Config, typed: Collection[str]
) -> list[Scored]:
    if set(names) <= {HARNESS}:
        return []
    corpus = _own_corpus(run) if config["data"] is None else _other_corpus(run, config, typed)

    def subject(corpus: Corpus) -> Subject:
        return Subject(
            net,
            corpus.tokenizer,
            corpus.validation,
            collator=lambda: _own_collator(run, config, net, corpus),
            objective=lambda: build.objective({**config, "task": _task(run)}),
            batch_size=config["batch_size"],
            seed=config["seed"],
        )

    split = "validation" if config["data"] is None else "all"
    return evaluations(names, corpus, subject, folder.name, split)


def _own_collator(run: Run, config: Config, net: Transformer, corpus: Corpus) -> Collator:
    """What made the run's batches; its own config names it, among our classes alone."""
    config = {**config, "task": _task(run)}
    collate = build.collator(config, corpus.tokenizer, net.config)
    kept = run.references if config["data"] is None else None
    return build.with_reference_log_probabilities(collate, config, corpus, lambda: _first(run, net), kept)


def _first(run: Run, net: Transformer) -> build.Origin:
    """What the run began as, of the context that its model has now."""
    return build.read_origin(str(run.config.get("init_from")), None).shortened(net.config.context_length)


def _task(run: Run) -> Config:
    if not isinstance(task := run.config.get("task"), dict):
        raise DataError(f"{run.folder}/config.yaml says nothing of the run's task.")
    return task


def evaluations(
    names: Iterable[str],
    corpus: AnyCorpus,
    subject: Callable[[Corpus], Subject],
    checkpoint: str,
    split: str = "validation",
) -> list[Scored]:
    """What those evaluations of `names` that are of text find on the corpus's held-out stream, or on each of a mixture's.

    Args:
        names: of evaluations.
        corpus: what is scored on.
        subject: the model, on the held-out documents of a corpus.
        checkpoint: the name of the model's checkpoint.
        split: what the held-out text is called.

    Raises:
        ConfigError: there is no evaluation of a name, or one is not for such a model.
        DataError: nothing is held out.
    """
    on_text = [name for name in known_names(names) if name != HARNESS]
    held_out = {name: one for name, one in corpus.corpora.items() if len(one.validation) > 1}
    if on_text and not held_out:
        raise DataError(f"{corpus.name} holds nothing out to score on: raise data.validation_share.")
    # One of each corpus, whose collator all its evaluations share.
    subjects = {name: subject(one) for name, one in held_out.items()}
    return [
        Scored.of(name, data, split, checkpoint, EVALUATIONS[name](one))
        for data, one in subjects.items()
        for name in on_text
    ]


def on_tasks(
    names: Collection[str],
    net: Transformer,
    tokenizer: Tokenizer,
    checkpoint: str,
    config: Config,
    batch_size: int = BATCH_SIZE,
) -> list[Scored]:
    """What the config's tasks of lm-evaluation-harness find, an entry a task; none where it is not among `names`."""
    if HARNESS not in names:
        return []
    from llm.evaluation.harness_model import LiveModel

    model = LiveModel(net, tokenizer, batch_size=batch_size, seed=config["seed"])
    results = run_tasks(model, Tasks(**config[HARNESS]), config["seed"])
    if model.n_cut:
        print(
            f"{model.n_cut:,} contexts are longer than the model's {net.config.context_length}: only their ends count."
        )
    return [Scored.of(HARNESS, name, shots(config), checkpoint, result) for name, result in results.items()]


def check_names(names: Iterable[str], config: Config) -> None:
    """Refuse what can't be evaluated, before any time goes into it.

    Raises:
        ConfigError: there is no evaluation of a name, or no such task.
    """
    if HARNESS in known_names(names):
        check(Tasks(**config[HARNESS]))


def known_names(names: Iterable[str]) -> list[str]:
    """The names of evaluations; ConfigError where there is none of a name."""
    found = list(names)
    for name in found:
        if name not in (*EVALUATIONS, HARNESS):
            raise ConfigError(
                f"eval={name}: there is no such evaluation. eval is one or a list of {', '.join((*EVALUATIONS, HARNESS))}."
            )
    return found


def _own_corpus(run: Run) -> AnyCorpus:
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


def _other_corpus(run: Run, config: Config, typed: Collection[str]) -> AnyCorpus:
    """All of the config's `data`, held out, in the run's tokens."""
    data, own = config["data"], run.config.get("data") or {}
    # What a source of the run's is called so, or what the run read alone, is read alike.
    owns = {name: (own.get("sources") or {}).get(name, own) for name in data["sources"] or {}}
    sources = {
        name: _held_out(data["sources"][name], like, f"data.sources.{name}", typed)
        for name, like in owns.items()
    }
    data = {**_held_out(data, own, "data", typed), "sources": sources}
    spec = build.FixedTokenizer(load_tokenizer(run.tokenizer))
    # A run of an earlier version knows nothing of templates.
    task = {"template": None, **(run.config.get("task") or {})}
    return build.corpus({**config, "data": data, "task": task}, spec, show=True)


def _held_out(node: Config, own: Config, key: str, typed: Collection[str]) -> Config:
    """All of a source, held out; of its text and label keys those are the run's `own` that weren't typed behind `key`."""
    like = [
        name
        for name in TEXT_KEYS
        if name in node
        and name in own
        and f"{key}.{name}" not in typed
        # A column by its number says nothing of one by its name.
        and isinstance(own[name], int) == isinstance(node[name], int)
    ]
    return {**node, **{name: own[name] for name in like}, "validation_share": 1.0}
