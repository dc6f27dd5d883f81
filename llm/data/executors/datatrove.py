"""The pieces of a preparation as tasks of datatrove's executors: processes of a machine, or jobs of a Slurm cluster.

Tasks read the data and write under shards_dir, which every machine sees under the same path. What concerns all pieces
(comparing documents, training the tokenizer, writing shards in order) is done by the command that started them, as it
is with processes of its own. So the shards are the same, and a piece that is finished is never done again.
"""

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from llm.bounds import Count
from llm.data.executors.processes import Job, Records, how_many
from llm.errors import ConfigError, DataError, UserError, missing_package
from llm.files import write_atomically

try:
    from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
except ImportError:
    raise missing_package("executor=local (or slurm)", "datatrove", "cluster") from None

LOGS = "tasks"
ERROR = ".error"


class Task:
    """What each task does: of the pieces `numbers` its share, but for those that are finished.

    An error that is the user's ends it; its text is left in the folder `logs` for who waits, on whichever machine.
    """

    def __init__(self, job: Job, numbers: Sequence[int], logs: Path) -> None:
        self.job, self.numbers, self.logs = job, numbers, logs

    def __repr__(self) -> str:
        return f"{type(self.job).__name__} of {len(self.numbers)} pieces"

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Do the share of task `rank` of `world_size`."""
        try:
            for number in self.numbers[rank::world_size]:
                if self.job.files(number).finished() is None:
                    self.job(number)
        except UserError as error:
            write_atomically(self.logs / f"{rank:05d}{ERROR}", str(error))


class Tasks(ABC):
    """Executor: an engine that runs tasks, and somebody who sees the pieces become finished."""

    tasks: int
    poll_seconds: ClassVar[float] = 0.1
    # A shared file system may tell of a new file this late.
    late_seconds: ClassVar[float] = 0.0

    @abstractmethod
    def engine(self, task: Task, count: int, workers: int, logs: str) -> Any:
        """The executor of datatrove's that does `count` tasks, `workers` (-1: all) at a time."""

    @abstractmethod
    def workers(self, processes: int | None, count: int, n_bytes: int | None) -> int:
        """How many tasks to do at a time."""

    def run(self, job: Job, waiting: Sequence[int], processes: int | None, n_bytes: int | None) -> Records:
        """Do the pieces `waiting`; see `llm.data.executors.processes.Executor`."""
        if not waiting:
            return
        folder = job.files(waiting[0]).record.parent
        logs = folder / LOGS
        shutil.rmtree(logs, ignore_errors=True)
        count = min(len(waiting), self.tasks)
        workers = self.workers(processes, count, n_bytes)
        call = _Call(self.engine(Task(job, waiting, logs), count, workers, str(logs)).run)
        left = {job.files(number).record.name: number for number in waiting}
        yield from self._finished(job, left, folder, call)
        call.join()
        if left:
            raise _failure(len(left), logs, call.error)
        shutil.rmtree(logs, ignore_errors=True)

    def _finished(self, job: Job, left: dict[str, int], folder: Path, call: "_Call") -> Records:
        """Each piece as it is there, until all are, or the engine has ended without."""
        end = float("inf")
        while left and time.monotonic() < end:
            if not call.is_alive() and end == float("inf"):
                failed = call.error or any((folder / LOGS).glob(f"*{ERROR}"))
                end = time.monotonic() + (0 if failed else self.late_seconds)
            for name in sorted(left.keys() & set(os.listdir(folder))):
                if record := job.files(left[name]).finished():
                    yield left.pop(name), record
            call.join(self.poll_seconds)


def _failure(left: int, logs: Path, error: BaseException | None) -> BaseException:
    if told := sorted(logs.glob(f"*{ERROR}")):
        return DataError(told[0].read_text(encoding="utf-8"))
    if error is not None and not isinstance(error, subprocess.CalledProcessError):
        return error
    return DataError(
        f"Tasks ended with {left} pieces undone; what each of them said is in {logs}. Finished pieces are kept: run the "
        "same command again."
    )


class _Call(threading.Thread):
    """A call in a thread of its own, which doesn't keep the process."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error


class _Quiet(LocalPipelineExecutor):
    """An executor whose tasks log to their files alone: the terminal is for the progress."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        return super()._run_for_rank(rank, local_rank + 1, node_rank)


@dataclass(frozen=True)
class LocalTasks(Tasks):
    """Executor: datatrove's LocalPipelineExecutor."""

    tasks: Count = 1000

    def engine(self, task: Task, count: int, workers: int, logs: str) -> Any:
        """The executor."""
        return _Quiet([task], count, workers, logs, skip_completed=False)

    def workers(self, processes: int | None, count: int, n_bytes: int | None) -> int:
        """As many as pay."""
        return how_many(processes, count, n_bytes)


@dataclass(frozen=True)
class SlurmTasks(Tasks):
    """Executor: datatrove's SlurmPipelineExecutor, an array of jobs for which the command waits.

    Raises:
        ConfigError: there is no Slurm here.
    """

    partition: str
    time: str = "24:00:00"
    tasks: Count = 1000
    cpus_per_task: Count = 1
    mem_per_cpu_gb: Count = 4
    qos: str | None = None
    env_command: str | None = None
    sbatch: Mapping[str, Any] = field(default_factory=dict)
    poll_seconds: ClassVar[float] = 2.0
    late_seconds: ClassVar[float] = 90.0

    def __post_init__(self) -> None:
        if shutil.which("sbatch") is None:
            raise ConfigError("executor=slurm: there is no sbatch; run this where jobs are submitted.")

    def engine(self, task: Task, count: int, workers: int, logs: str) -> Any:
        """The executor, whose `run` ends when the jobs do."""
        return SlurmPipelineExecutor(
            [task],
            count,
            self.time,
            self.partition,
            cpus_per_task=self.cpus_per_task,
            mem_per_cpu_gb=self.mem_per_cpu_gb,
            workers=workers,
            job_name="llm-prepare",
            qos=self.qos,
            env_command=self.env_command or _own_environment(),
            sbatch_args={"wait": "", **self.sbatch},
            logging_dir=logs,
            skip_completed=False,
        )

    def workers(self, processes: int | None, count: int, n_bytes: int | None) -> int:
        """As many as the cluster gives, where nobody bounds them."""
        return processes or -1


def _own_environment() -> str:
    """Shell commands after which another machine finds what this process runs by, under the same paths."""
    programs, modules = Path(sys.executable).parent, Path(__file__).parents[2]
    return f'export PATH={shlex.quote(str(programs))}:"$PATH" PYTHONPATH={shlex.quote(str(modules))}:"$PYTHONPATH"'
