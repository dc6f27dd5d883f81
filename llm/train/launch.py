"""Which process of a job this is, and how rank 0's decisions reach the others."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm.errors import ConfigError, TrainingError
from llm.files import read_json, write_json

HANDED_OVER = "LLM_DECISION"
WAIT_SECONDS = 600
LAUNCH_NAMES = (
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_RESTART_COUNT",
    "MASTER_PORT",
)


def rank() -> int:
    """This process's global rank, known before any process group exists."""
    # What Lightning started inherits an outer launcher's names: then its own alone counts.
    names = ("LOCAL_RANK",) if HANDED_OVER in os.environ else ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def decide(folder: Path, decision: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Rank 0's `decision`, the same on every rank.

    Processes that Lightning starts inherit it by their environment; those that a launcher such as torchrun started
    beside rank 0 read it from a file in `folder` that is named after this launch.
    """
    if rank() == 0:
        decided = decision()
        os.environ[HANDED_OVER] = json.dumps(decided)
        if _launch_id():
            write_json(_handover_file(folder), decided)
        return decided
    if HANDED_OVER in os.environ:
        return json.loads(os.environ[HANDED_OVER])
    return _wait_for(_handover_file(folder))


def check_world_size(wanted: int) -> None:
    """Refuse a launcher that started another number of processes than the config comes to.

    Raises:
        ConfigError: each process would train for itself, in the same folder.
    """
    started = int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else wanted
    if started != wanted:
        raise ConfigError(
            f"The launcher started {started} processes, and strategy=, trainer.devices= and trainer.num_nodes= come to "
            f"{wanted}: set them to match, for instance strategy=ddp trainer.devices={started}."
        )


def forget(folder: Path) -> None:
    """Remove what this launch handed over, so that a later one of the same name does not read it."""
    if rank() == 0:
        os.environ.pop(HANDED_OVER, None)
        if _launch_id():
            _handover_file(folder).unlink(missing_ok=True)


def _launch_id() -> str:
    """What tells one external launch from the next; empty without one."""
    parts = [os.environ[name] for name in LAUNCH_NAMES if name in os.environ]
    return "-".join(parts) if "RANK" in os.environ or "SLURM_PROCID" in os.environ else ""


def _handover_file(folder: Path) -> Path:
    return folder / f".launch-{_launch_id()}.json"


def _wait_for(path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise TrainingError(
                f"Rank {rank()} waited {WAIT_SECONDS} s for rank 0's {path}. Did rank 0 stop, or is "
                f"{path.parent} not on a file system that all nodes share?"
            )
        time.sleep(0.2)
    return read_json(path)
