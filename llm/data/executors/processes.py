"""What does the pieces of a corpus: worker processes, started afresh, gone with their parent, as many as pay."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from llm.errors import DataError

BYTES_PER_PROCESS = 1 << 23


class Files(Protocol):
    """What the work on a piece leaves behind."""

    @property
    def record(self) -> Path:
        """The file that is written last."""
        ...

    def finished(self) -> dict[str, Any] | None:
        """The record, if the piece is whole and undamaged."""
        ...


class Job(Protocol):
    """Picklable work that comes in numbered pieces, each of which leaves its files behind, whole or not at all."""

    def __call__(self, number: int) -> dict[str, Any]:
        """Do one piece; returns its record."""
        ...

    def files(self, number: int) -> Files:
        """Where a piece's files are."""
        ...


Records = Iterator[tuple[int, dict[str, Any]]]


class Executor(Protocol):
    """Does the pieces of a job, in any order."""

    def run(self, job: Job, waiting: Sequence[int], processes: int | None, n_bytes: int | None) -> Records:
        """Do the pieces `waiting`, of `n_bytes` together; gives each number and record as they are done.

        `processes` are how many work at a time; None: as many as pay, or as there are.

        Raises:
            DataError: work ended before it was done.
        """
        ...


# An executor and its processes, for a job, the pieces that wait and their bytes together.
Do = Callable[[Job, Sequence[int], int | None], Records]


class Processes:
    """Executor: processes of this machine."""

    def run(self, job: Job, waiting: Sequence[int], processes: int | None, n_bytes: int | None) -> Records:
        """Do the pieces `waiting`."""
        return run(job, waiting, how_many(processes, len(waiting), n_bytes))


def how_many(processes: int | None, waiting: int, n_bytes: int | None) -> int:
    """How many processes to use for so many pieces of `n_bytes` together; None: as many as pay."""
    if processes is None:
        pay = waiting if n_bytes is None else n_bytes // BYTES_PER_PROCESS
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = min(cores, pay)
    return max(1, min(processes, waiting))


def run(job: Job, waiting: Sequence[int], processes: int) -> Records:
    """Do the pieces `waiting`; gives each number and record as they are done.

    Raises:
        DataError: a process died.
    """
    if processes == 1:
        for number in waiting:
            yield number, job(number)
        return
    with _pool(processes, partial(_Worker.start, job)) as pool:
        futures = {pool.submit(_Worker.work, number): number for number in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "A process that was working on the text died, perhaps for want of memory. Finished pieces are kept: "
                "run the same command again, with fewer processes if it happens again."
            ) from error


@contextmanager
def _pool(processes: int, start: partial) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, started afresh: a fork of a process with threads may hang."""
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), start)
    try:
        yield pool
    except BaseException:
        # Nothing is lost with a worker but the piece at hand, which may take long.
        for worker in set(multiprocessing.active_children()).difference(others):
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """The state of a worker process."""

    job: Job

    @classmethod
    def start(cls, job: Job) -> None:
        """Get ready, and die with the parent, which may be killed without a chance to say so."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_die_with_parent, daemon=True).start()
        cls.job = job

    @classmethod
    def work(cls, number: int) -> dict[str, Any]:
        """Do one piece."""
        return cls.job(number)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
