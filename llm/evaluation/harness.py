"""Tasks of lm-evaluation-harness: which there are, and what a model makes of them."""

import difflib
import importlib.util
import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch

from llm.errors import ConfigError, DataError, UserError, missing_package
from llm.evaluation.result import Result, Row

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

# Metrics that are of sums over all examples: what each example adds to the numerator and to the denominator.
BITS = 1 / math.log(2)


@dataclass(frozen=True)
class Tasks:
    """Which of the harness's tasks, and how.

    Args:
        tasks: names of tasks, groups or tags.
        include_path: a folder with task files (YAML) of one's own.
        num_fewshot: examples shown before each question, where the task lets one choose.
        limit: examples of each task, from the first on; None for all.
    """

    tasks: Sequence[str]
    include_path: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None


def check(tasks: Tasks) -> "TaskManager":
    """What knows these tasks.

    Raises:
        ConfigError: the harness isn't installed, or there is no such folder or task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise missing_package("eval=lm_eval", "lm_eval", "eval")
    if not tasks.tasks:
        raise ConfigError("eval=lm_eval: it needs tasks, such as lm_eval.tasks=[hellaswag,arc_easy].")
    if tasks.include_path and not Path(tasks.include_path).is_dir():
        raise ConfigError(f"lm_eval.include_path={tasks.include_path}: there is no such folder.")
    from lm_eval.tasks import TaskManager

    own: list[str] = []
    if tasks.include_path:
        manager = TaskManager(include_path=tasks.include_path, include_defaults=False)
        own = manager.all_tasks
        # It is enough then, and reading the harness's own ten thousand files takes seconds.
        if set(tasks.tasks) <= set(own):
            return manager
    known = [*own, *_defaults().all_tasks]
    for name in tasks.tasks:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(
                f"lm_eval.tasks={name}: lm-evaluation-harness has no such task, group or tag, nor has "
                f"lm_eval.include_path.{hint} `lm_eval ls tasks` lists them."
            )
    return TaskManager(include_path=tasks.include_path) if own else _defaults()


@cache
def _defaults() -> "TaskManager":
    """What knows the harness's own tasks, made once: a command checks its tasks long before it runs them."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def run_tasks(model: "LM", tasks: Tasks, seed: int) -> dict[str, Result]:
    """The figures of each task and group by its name; tasks have outputs, an example each.

    Raises:
        ConfigError: see `check`; and what the model refuses.
        DataError: a task's files or data can't be read.
    """
    manager = check(tasks)
    from lm_eval import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        # Which packages there are, it asks of pip and others for seconds, and of that nothing is in a result.
        with _chance_of_its_own(), patch("lm_eval.evaluator.add_env_info", create=True):
            found = simple_evaluate(
                model=model,
                tasks=list(tasks.tasks),
                task_manager=manager,
                num_fewshot=tasks.num_fewshot,
                limit=tasks.limit,
                bootstrap_iters=0,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except UserError:
        raise
    except Exception as error:
        # Of whatever kind: a task's files and its data set's are programs of their own.
        said = " ".join(str(error).split())
        raise DataError(
            f"lm_eval.tasks={', '.join(tasks.tasks)}: {type(error).__name__}: {said} Data sets of the Hugging Face hub "
            "need a network once, or files in its cache; lm_eval.include_path= takes tasks with files of your own."
        ) from error
    samples = found["samples"]
    return {name: _result(figures, samples.get(name, [])) for name, figures in found["results"].items()}


@contextmanager
def _chance_of_its_own() -> Iterator[None]:
    """The harness seeds every generator that there is: afterwards they are as they were, for training to go on."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _result(figures: dict[str, Any], samples: Sequence[dict[str, Any]]) -> Result:
    metrics = {
        _metric(name): float(value)
        for name, value in figures.items()
        if "," in name and isinstance(value, int | float)
    }
    count = figures.get("sample_len") or figures.get("sample_count") or len(samples)
    return Result(metrics, count if isinstance(count, int) else len(samples), _rows(samples, metrics))


def _metric(name: str, filter_name: str = "") -> str:
    """`acc` of `acc,none`, and `exact_match_strict-match` of `exact_match,strict-match`."""
    metric, _, given = name.partition(",")
    filter_name = filter_name or given
    return metric if filter_name == "none" else f"{metric}_{filter_name}"


def _rows(samples: Sequence[dict[str, Any]], metrics: dict[str, float]) -> list[Row]:
    """An example a row, whatever filters its answer went through."""
    rows: dict[int, Row] = {}
    for sample in samples:
        row = rows.setdefault(sample["doc_id"], _row(sample))
        for name in sample["metrics"]:
            metric = _metric(name, sample["filter"])
            if (score := _score(metric, sample[name])) is not None:
                row["scores"][metric] = score
    of_sums = {name for name in metrics if _adds_up(list(rows.values()), name, metrics[name])}
    for row in rows.values():
        row["scores"] = {name: score for name, score in row["scores"].items() if name in of_sums}
    return list(rows.values())


def _row(sample: dict[str, Any]) -> Row:
    return {
        "id": sample["doc_hash"],
        "prompt": sample["arguments"][0][0],
        "target": sample["target"],
        "answers": [answer[0] if isinstance(answer, list) else answer for answer in sample["resps"]],
        "scores": {},
    }


def _score(metric: str, value: Any) -> list[float] | None:
    """What an example adds to a metric's numerator and denominator; None where it isn't made of such sums."""
    if isinstance(value, bool | int | float):
        return [float(value), 1.0]
    if isinstance(value, tuple | list) and len(value) == 2 and metric == "bits_per_byte":
        return [-float(value[0]) * BITS, float(value[1])]
    return None


def _adds_up(rows: Sequence[Row], metric: str, figure: float) -> bool:
    """Whether the metric is the sum of its numerators over that of its denominators."""
    scores = [row["scores"].get(metric) for row in rows]
    if not scores or None in scores:
        return False
    above, below = (math.fsum(part) for part in zip(*scores, strict=True))
    return below > 0 and math.isclose(above / below, figure, rel_tol=1e-6, abs_tol=1e-9)
