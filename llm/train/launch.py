"""Which process of a job this is, whether all of them are alike, and how rank 0's decisions reach the others."""

import contextlib
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from llm.errors import ConfigError, TrainingError, UserError

if TYPE_CHECKING:
    from torch.distributed import Store

HANDED_OVER = "LLM_DECISION"
WAIT_SECONDS = 600
_DECISION = "decision"
# Two runs in the same processes have a store, but not its keys, in common.
_runs = itertools.count()


def rank() -> int:
    """This process's global rank, known before any process group exists."""
    # What Lightning started inherits an outer launcher's names: then its own alone counts.
    names = ("LOCAL_RANK",) if HANDED_OVER in os.environ else ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def by_torchrun() -> bool:
    """Whether torchrun, or what sets the same names, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and HANDED_OVER not in os.environ


def by_srun() -> bool:
    """Whether SLURM's srun started this process as one of a job's; a shell in a job is no such process."""
    names = ("SLURM_PROCID", "SLURM_NTASKS")
    own = all(name in os.environ for name in names) and HANDED_OVER not in os.environ
    return own and not by_torchrun() and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def launched() -> int:
    """How many processes a launcher started for this job; 0 without one."""
    if by_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if by_srun() else 0


def launched_here() -> int:
    """How many of them on this node; 0 without a launcher, or where it doesn't say."""
    name = "LOCAL_WORLD_SIZE" if by_torchrun() else "SLURM_NTASKS_PER_NODE"
    given = os.environ.get(name, "")
    return int(given) if launched() and given.isdigit() else 0


def check_world_size(wanted: int) -> None:
    """Refuse a launcher that started another number of processes than the config comes to.

    Raises:
        ConfigError: each process would train for itself, in the same folder, or wait for others.
    """
    count = launched() or wanted
    if count == wanted:
        return
    here = launched_here() or count
    nodes = f" trainer.num_nodes={count // here}" if count > here else ""
    raise ConfigError(
        f"The launcher started {count} processes, and strategy=, trainer.devices= and trainer.num_nodes= come to "
        f"{wanted}: set them to match, for instance strategy=ddp trainer.devices={here}{nodes}."
    )


def check_alike(about: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a job whose processes differ; those that Lightning starts can't.

    Args:
        about: this process's values by name, in groups whose names an error begins with.

    Raises:
        ConfigError: another rank has another value; told on rank 0, where the others end with its exit code. Or the
            others were never started.
    """
    if by_srun() and launched() > 1 and "SLURM_STEP_ID" not in os.environ:
        raise ConfigError(
            f"This SLURM job has {launched()} tasks, and a Python without srun is none of them: write srun before the "
            "command (deploy/train.sbatch)."
        )
    store = _store()
    if store is None:
        return
    if rank():
        store.set(f"about/{rank()}", json.dumps({"host": platform.node(), "about": about}))
        return
    with _telling(store):
        for other in range(1, launched()):
            _compare(about, other, _wait(store, f"about/{other}", f"rank {other}"))


def _compare(about: Mapping[str, Mapping[str, Any]], other: int, found: dict[str, Any]) -> None:
    for group, ours in about.items():
        # As it comes out of JSON.
        ours, theirs = json.loads(json.dumps(ours)), found["about"].get(group, {})
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise ConfigError(
                    f"{group} differ between processes: rank {other} on {found['host']} has {name}={theirs.get(name)}, "
                    f"and rank 0 on {platform.node()} {name}={ours.get(name)}. Start the same command in the same "
                    "environment everywhere."
                )


def decide(decision: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Rank 0's `decision`, the same on every rank.

    Processes that Lightning starts inherit it by their environment; those that a launcher started beside rank 0 read it
    from the store by which they then form their group. Where rank 0 fails, they end with its exit code.
    """
    store = _store()
    if rank() > 0:
        found = json.loads(os.environ[HANDED_OVER]) if store is None else _wait(store, _DECISION, "rank 0")
        return found["decided"] if "decided" in found else sys.exit(found["failed"])
    with _telling(store):
        decided = decision()
    handed = json.dumps({"decided": decided})
    if store is None:
        os.environ[HANDED_OVER] = handed
    else:
        store.set(_DECISION, handed)
    return decided


def forget() -> None:
    """Take back what this run handed over, so that a later one in the same process doesn't inherit it."""
    _store.cache_clear()
    if rank() == 0:
        os.environ.pop(HANDED_OVER, None)


@contextlib.contextmanager
def _telling(store: "Store | None") -> Iterator[None]:
    """Within, rank 0's failure is told to those who wait for its decision."""
    try:
        yield
    except BaseException as error:
        if store is not None:
            code = error.exit_code if isinstance(error, UserError) else 1
            store.set(_DECISION, json.dumps({"failed": code}))
        raise


def _wait(store: "Store", key: str, whom: str) -> dict[str, Any]:
    try:
        store.wait([key], timedelta(seconds=WAIT_SECONDS))
        return json.loads(store.get(key))
    except RuntimeError as error:
        raise TrainingError(
            f"Rank {rank()} heard nothing of {whom} within {WAIT_SECONDS} s ({error}). Did that process stop?"
        ) from error


@cache
def _store() -> "Store | None":
    """This run's part of the launch's store; None without a launcher of several processes."""
    if launched() < 2:
        return None
    from torch.distributed import PrefixStore

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = _launch_store()
    if attempt != "0" and rank() == 0:
        # Before the others hear rank 0's decision, and form their group.
        _forget_addresses(store)
    return PrefixStore(f"llm/{attempt}/{next(_runs)}", store)


def _forget_addresses(store: "Store") -> None:
    """Take out what the group of an earlier start wrote, where Gloo would find the addresses of processes that are gone.

    torchrun's store outlives a restart, and PyTorch's next group reads by the same keys what another process may not
    have written anew: a matter of who is first.
    """
    # Older PyTorch can't list them.
    for key in getattr(store, "list_keys", list)():
        if key.startswith("default_pg/"):
            store.delete_key(key)


@cache
def _launch_store() -> "Store":
    """The store at MASTER_ADDR and MASTER_PORT: torchrun's, or else one on rank 0, which the process group then shares."""
    from lightning.fabric.plugins.environments import SLURMEnvironment
    from torch.distributed import rendezvous

    if by_srun():
        # Sets both names from the job's nodes and number, as Lightning's strategies will.
        here = SLURMEnvironment(auto_requeue=False)
        address = f"tcp://{here.main_address}:{here.main_port}"
    else:
        address = "env://"
    found: Store = next(rendezvous(address, rank(), launched(), timeout=timedelta(seconds=WAIT_SECONDS)))[0]
    return found
