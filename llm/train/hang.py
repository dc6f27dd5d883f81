"""The watch over a job that may stop getting on: it ends, and leaves behind where each of its threads stood."""

import contextlib
import faulthandler
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import lightning as L

from llm.train.run import Run, now

CHECKS = 10
# The first step compiles; validation, samples and checkpoints take what they take.
PATIENCE = 10
# A slow machine's steps are no hang.
LONGEST_STEPS = 2
# What writing the stacks may take, where the file system is what hangs.
WRITING_SECONDS = 60


class HangWatch(L.Callback):
    """Ends this process, with the stacks of all its threads in the run's folder, when it no longer gets on.

    It gets on with each micro-batch. Where one rank hangs, the others wait for it within a collective, so that all of
    them end, each with its stacks. Outside of plain steps (in the first, which compiles, in validation, and within
    `unhurried`) the limit is ten times as long, and it is never less than twice the longest step so far. The time for
    which a process was stopped, to be continued, doesn't count.

    Args:
        run: where the stacks go, as `hang-rank-<rank>.txt`.
        seconds: without progress, after which it ends.
    """

    def __init__(self, run: Run, seconds: float) -> None:
        self.run = run
        self.seconds = seconds
        self._steps = self._others = 0
        # How many reasons there are to be patient.
        self._unhurried = 0
        self._over = threading.Event()

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """What happens within (saving, sampling) may take ten times as long."""
        self._unhurried += 1
        try:
            yield
        finally:
            self._others += 1
            self._unhurried -= 1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to watch."""
        self._over.clear()
        self._steps, self._unhurried = 0, 1
        threading.Thread(target=self._watch, args=(trainer,), name="hang-watch", daemon=True).start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """A micro-batch is done."""
        if not self._steps:
            self._unhurried -= 1
        self._steps += 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Be patient."""
        self._unhurried += 1

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """A batch of it is done."""
        self._others += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on as before."""
        self._others += 1
        self._unhurried -= 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Be patient with what the others do at the end."""
        self._unhurried += 1

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Watch no longer."""
        self._over.set()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self, trainer: L.Trainer) -> None:
        interval = self.seconds / CHECKS
        steps, others, idle, longest = self._steps, self._others, 0.0, 0.0
        # Checks are counted, since a clock goes on while a process is stopped.
        while not self._over.wait(interval):
            if (steps, others) == (self._steps, self._others):
                idle += interval
                if idle >= self._limit(longest):
                    self._end(trainer, idle)
            else:
                if others == self._others:
                    longest = max(longest, idle)
                steps, others, idle = self._steps, self._others, 0.0

    def _limit(self, longest: float) -> float:
        return self.seconds * PATIENCE if self._unhurried else max(self.seconds, LONGEST_STEPS * longest)

    def _end(self, trainer: L.Trainer, idle: float) -> None:
        """Write all threads' stacks and leave; the main thread can't be asked to."""
        rank, step = trainer.global_rank, trainer.global_step
        faulthandler.dump_traceback_later(WRITING_SECONDS, exit=True, file=sys.__stderr__ or 2)
        path = self.run.folder / f"hang-rank-{rank}.txt"
        with contextlib.suppress(OSError), path.open("w", encoding="utf-8") as file:
            file.write(
                f"{now()}, {platform.node()}, rank {rank}: nothing for {idle:.0f} s after step {step}\n\n"
            )
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        print(
            f"error: Rank {rank} on {platform.node()} has done nothing for {idle:.0f} s after step {step}. The stacks of "
            f"its threads are in {path}. The same command goes on from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        if trainer.is_global_zero:
            with contextlib.suppress(Exception):
                self.run.update(status="failed")
        # Others have noticed by then: a launcher ends them all with the first, and Lightning rank 0 by a signal.
        time.sleep(self.seconds / CHECKS * (1 if trainer.is_global_zero else 2))
        os._exit(1)
