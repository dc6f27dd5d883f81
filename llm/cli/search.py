"""A sweep whose values Optuna chooses, by hydra-optuna-sweeper."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from omegaconf import OmegaConf

from llm.cli.sweep import Axis, Plan
from llm.errors import missing_package

_SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "cmaes": "CmaEsSampler"}


def search(plan: Plan, settings: Mapping[str, Any], run: Callable[[dict[str, str]], float | None]) -> None:
    """Let a sampler choose `settings["trials"]` jobs of `plan`, one after another.

    The study is kept in memory: its sampler is seeded, and `run` knows the figures of the jobs that have finished,
    so that the same sweep, started again, makes the same choices up to where it stopped.

    Args:
        plan: what can be chosen.
        settings: sampler, trials, goal and seed.
        run: trains a job with these values and gives the figure that it is judged by, None where it has none.

    Raises:
        ConfigError: hydra-optuna-sweeper is not installed.
    """
    if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        raise missing_package(f"sweep.sampler={settings['sampler']}", "hydra-optuna-sweeper", "optuna")
    sweeper, launcher = _sweeper(settings), _Launcher(plan, run)
    # What its `setup` would take from a whole program of Hydra's.
    sweeper.hydra_context, sweeper.launcher = SimpleNamespace(), launcher
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": folder}}})
        try:
            sweeper.sweep([_word(axis) for axis in plan.axes])
        except ValueError as error:
            # It asks for the best at the end, and there is none where every job failed.
            if launcher.judged or "completed" not in str(error):
                raise


def _sweeper(settings: Mapping[str, Any]) -> Any:
    """Hydra's sweeper by Optuna, quiet, with a seeded sampler and nothing kept on disk."""
    import optuna
    from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)
    return OptunaSweeper(
        sampler=getattr(optuna.samplers, _SAMPLERS[settings["sampler"]])(seed=settings["seed"]),
        direction=settings["goal"],
        storage=None,
        study_name=None,
        n_trials=settings["trials"],
        n_jobs=1,
        max_failure_rate=1.0,
        search_space=None,
        custom_search_space=None,
        params=None,
    ).sweeper


class _Launcher:
    """What the sweeper hands its choices to, as to a launcher of Hydra's."""

    def __init__(self, plan: Plan, run: Callable[[dict[str, str]], float | None]) -> None:
        self.judged = 0
        self._axes = {axis.key: axis for axis in plan.axes}
        self._run = run

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[SimpleNamespace]:
        """Run each job of `key=value`s; returns what has its figure as `return_value`."""
        return [SimpleNamespace(return_value=self._judge(words)) for words in jobs]

    def _judge(self, words: Sequence[str]) -> float | None:
        chosen = dict(word.split("=", 1) for word in words)
        figure = self._run({key: _value(self._axes[key], text) for key, text in chosen.items()})
        self.judged += figure is not None
        return figure


def _word(axis: Axis) -> str:
    """The axis in Hydra's grammar; one that lists its values, by their places, whatever stands in them."""
    if not axis.options:
        return axis.word
    places = ",".join(map(str, range(len(axis.options))))
    return f"{axis.key}=choice({places})"


def _value(axis: Axis, text: str) -> str:
    return axis.options[int(text)] if axis.options else text
