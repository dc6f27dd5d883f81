"""What only watches training: the strategy that really runs, and what the model writes."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from llm.files import write_atomically
from llm.train.metrics import Pause
from llm.train.run import Run
from llm.train.sharding import local
from llm.train.strategies import ZeroStrategy


class StrategyRecord(L.Callback):
    """Writes into run.json what really runs: the strategy's class, its processes, what each holds of the weights."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it down, on rank 0."""
        held = [local(parameter) for parameter in pl_module.parameters()]
        if trainer.is_global_zero:
            self.run.update(
                strategy={
                    "class": type(trainer.strategy).__name__,
                    "world_size": trainer.world_size,
                    "parameter_bytes_per_rank": sum(p.numel() * p.element_size() for p in held),
                    **(trainer.strategy.about() if isinstance(trainer.strategy, ZeroStrategy) else {}),
                }
            )


class EveryNSteps(L.Callback):
    """Does something every n optimizer steps, on every rank; what was done before this session is not done again."""

    every_n_steps: int
    _last = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from the step that this session goes on from."""
        self._last = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Act where the interval says so, once a step: it has several micro-batches."""
        step = trainer.global_step
        if step != self._last and step % self.every_n_steps == 0:
            self._last = step
            self.act(trainer)

    def act(self, trainer: L.Trainer) -> None:
        """What is done."""
        raise NotImplementedError


class SampleWriter(EveryNSteps):
    """Lets the model write every n steps, appends that to samples.jsonl, and hands it to whoever shows it.

    Args:
        path: samples.jsonl.
        write: makes the texts: called, on every rank, gives a text a prompt, without the prompt.
        prompts: what the texts begin with.
        every_n_steps: the interval, in optimizer steps.
        shows: each is called with the step, the prompts and the texts.
        pause: what sampling happens within, so that it does not count in the speed.
    """

    def __init__(
        self,
        path: Path,
        write: Callable[[], list[str]],
        prompts: list[str],
        every_n_steps: int,
        shows: Sequence[Callable[[int, Sequence[str], Sequence[str]], None]],
        pause: Pause,
    ) -> None:
        self.path = path
        self.write = write
        self.prompts = prompts
        self.every_n_steps = every_n_steps
        self.shows = shows
        self.pause = pause

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop what an earlier session wrote after the step that this one goes on from."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero and self.path.is_file():
            kept = [line for line in _whole_lines(self.path) if _step(line) <= self._last]
            write_atomically(self.path, "".join(kept))

    def act(self, trainer: L.Trainer) -> None:
        """Sample; all ranks make the same texts, since a split model needs all of them."""
        with self.pause():
            texts = self.write()
            if trainer.is_global_zero:
                self._note(trainer.global_step, texts)

    def _note(self, step: int, texts: list[str]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for prompt, text in zip(self.prompts, texts, strict=True):
                file.write(
                    json.dumps({"step": step, "prompt": prompt, "text": text}, ensure_ascii=False) + "\n"
                )
        for show in self.shows:
            show(step, self.prompts, texts)


class Evaluated(EveryNSteps):
    """Scores the model every n steps by what `eval` names, and logs the figures.

    Args:
        score: gives figures by name; called on every rank, since a split model needs all of them.
        every_n_steps: the interval, in optimizer steps.
        pause: what scoring happens within, so that it does not count in the speed.
    """

    def __init__(self, score: Callable[[], Mapping[str, float]], every_n_steps: int, pause: Pause) -> None:
        self.score = score
        self.every_n_steps = every_n_steps
        self.pause = pause

    def act(self, trainer: L.Trainer) -> None:
        """Score the model and log it."""
        with self.pause():
            figures = dict(self.score())
            for logger in trainer.loggers:
                logger.log_metrics(figures, trainer.global_step)


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file but for a last one that a kill cut short; a newline alone ends a line of JSON."""
    *whole, _ = path.read_bytes().split(b"\n")
    return [f"{line.decode(errors='replace')}\n" for line in whole]


def _step(line: str) -> float:
    """The step of a line of samples.jsonl; infinite where it is damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int) else math.inf
