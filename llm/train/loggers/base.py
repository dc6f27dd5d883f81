"""What every logger of a run is given, and what it can do."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from llm.errors import missing_package


@dataclasses.dataclass(frozen=True)
class LoggedRun:
    """The run that loggers write about.

    Args:
        folder: the run's.
        run_id: the same in every session of the run.
        name: what a person calls it.
        config: the composed config; loggers redact secrets themselves.
        resume_step: the step that this session starts from; what was logged after it is void. 0 for a fresh run.
    """

    folder: Path
    run_id: str
    name: str
    config: Mapping[str, Any]
    resume_step: int = 0


class RunLogger(Logger):
    """A Lightning logger of one run that can also take samples; all of it happens on rank 0 alone."""

    def __init__(self, run: LoggedRun) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self.run.run_id

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config is known from the start."""

    def log_samples(self, step: int, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Take what the model wrote at a step, each text with its prompt."""


def need(package: str) -> None:
    """Refuse a logger whose package isn't there.

    Raises:
        ConfigError: it isn't installed.
    """
    if importlib.util.find_spec(package) is None:
        instead = ", or leave the override out; metrics.csv is always written"
        raise missing_package(f"logger={package}", package, package, instead)
