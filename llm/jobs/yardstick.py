"""Models that aren't ours, scored beside our own: what is asked of them, and where what they answer is kept."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm.build import Config
from llm.errors import ConfigError
from llm.evaluation.api import Endpoint
from llm.evaluation.harness import Tasks, check, run_tasks
from llm.jobs.judged import Judged, judged
from llm.train.run import Run

HARNESS = "lm_eval"
BY_LETTER = "choices are named by their letters, since endpoints tell no likelihoods"


@dataclass(frozen=True)
class Yardstick:
    """A model of others.

    Args:
        label: what it is called beside runs.
        run: a folder that holds its results as a run's does.
        judged: asks it.
        cost: says what was asked, once that is done.
    """

    label: str
    run: Run
    judged: Callable[[], list[Judged]]
    cost: Callable[[], str]


def yardstick(config: Config) -> Yardstick:
    """What the config's `model` names, ready to be asked.

    Raises:
        ConfigError: it can't be asked so; nothing was asked yet.
    """
    names = config["eval"] or [HARNESS]
    if set(names) != {HARNESS}:
        raise ConfigError(f"eval={', '.join(names)}: model=api answers tasks alone, eval=lm_eval.")
    tasks = Tasks(**config[HARNESS])
    check(tasks)
    keys = dict(config["api"])
    folder, answer_tokens = Path(config["answers_dir"]), keys.pop("answer_tokens")
    endpoint = Endpoint(answers=folder / "kept", **keys)

    def asked() -> list[Judged]:
        from llm.evaluation.api_model import ApiModel

        model = ApiModel(endpoint, answer_tokens=answer_tokens, seed=config["seed"])
        results = run_tasks(model, tasks, config["seed"])
        if model.n_guessed:
            print(f"{model.n_guessed:,} answers named no choice, and count as guesses.")
        found = [
            judged(HARNESS, name, shots(config), endpoint.model, result) for name, result in results.items()
        ]
        return [Judged({**one.entry, "asked": BY_LETTER}, one.rows) for one in found]

    name = re.sub(r"[^\w.-]+", "_", endpoint.model)
    return Yardstick(endpoint.model, Run(folder / name), asked, endpoint.cost)


def shots(config: Config) -> str:
    """Which of a task's figures these are: they depend on how many examples were shown, and how many asked."""
    shown, limit = config[HARNESS]["num_fewshot"], config[HARNESS]["limit"]
    parts = [f"{shown}-shot" if shown is not None else "", f"first {limit}" if limit else ""]
    return ", ".join(part for part in parts if part) or "all"
