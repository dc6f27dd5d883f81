"""`llm train`: prepare, begin or go on, fit, and sum up."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from llm import build
from llm.build import Config, Origin
from llm.data import Corpus
from llm.errors import UserError
from llm.model import ModelConfig, parameter_count
from llm.train import launch, resume
from llm.train.callbacks import Interrupted
from llm.train.derive import Derived, derive
from llm.train.module import LanguageModule

from llm.train.run import Run, environment, now

Choices = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training command: its config and what was found and made for it."""

    config: Config
    choices: Choices
    run: Run
    origin: Origin
    corpus: Corpus
    shape: ModelConfig


def run(config: Config, choices: Choices) -> int:
    """Train as `config` says; returns the exit code."""
    first = launch.rank() == 0
    say = print if first else _nothing
    origin = build.origin(config)
    corpus = build.corpus(config, origin.tokenizer, show=first)
    shape = origin.shape.with_vocab_size(corpus.vocab_size)
    folder = Run(Path(config["runs_dir"]) / config["name"])
    job = Job(config, choices, folder, origin, corpus, shape)
    decision = launch.decide(folder.folder, lambda: _begin(job, say))
    derived = Derived(**decision["derived"])
    if decision["step"] >= derived.max_steps:
        say(f"{folder.folder} has done its {decision['step']} steps; a larger trainer.max_steps goes on.")
        return 0
    return _fit(job, derived, decision)


def _nothing(*_: object) -> None:
    """Ranks above 0 are quiet."""


def _begin(job: Job, say: Callable[[str], None]) -> dict[str, Any]:
    """Hold the run's folder, decide where training starts and what is left open, and write it all down."""
    run, corpus = job.run, job.corpus
    run.hold()
    identity = {"data": corpus.fingerprint, "tokenizer": corpus.tokenizer_hash, "initial weights": job.origin.identity}
    start = resume.begin(run, job.config, identity, say)
    known = run.record
    derived = derive(
        job.config,
        job.choices["strategy"],
        job.shape.context_length,
        samples_per_epoch=(len(corpus.train) - 1) // job.shape.context_length,
        known=known["derived"] if known else {},
    )
    corpus.tokenizer.save(run.tokenizer)
    run.write_config(job.config)
    checkpoint = str(start.checkpoint) if start.checkpoint else None
    resumes = known["resumes"] if known else []
    run.update(
        name=job.config["name"],
        created=known["created"] if known else now(),
        status="running",
        choices=job.choices,
        identity=identity,
        data={"name": corpus.name, "folder": str(corpus.folder), "bytes_per_token": corpus.bytes_per_token},
        model=job.shape.to_dict(),
        parameters=parameter_count(job.shape),
        derived=derived.record(),
        environment=environment(),
        resumes=[*resumes, {"step": start.step, "checkpoint": checkpoint, "time": now()}] if checkpoint else resumes,
    )
    return {"checkpoint": checkpoint, "step": start.step, "derived": derived.record()}


def _fit(job: Job, derived: Derived, decision: dict[str, Any]) -> int:
    L.seed_everything(job.config["seed"] + launch.rank(), verbose=False)
    net = build.model(job.shape, job.origin, job.config["seed"])
    module = build.module(job.config, net, derived, job.choices["strategy"])
    data = build.datamodule(job.config, job.corpus, derived, job.shape.context_length)
    resume_from = Path(decision["checkpoint"]) if decision["checkpoint"] else None
    trainer = build.trainer(
        job.config,
        job.run,
        derived,
        [build.checkpointer(job.config, job.run, net, job.corpus, resume_from)],
        [],
    )
    try:
        trainer.fit(module, datamodule=data)
    except Interrupted as stop:
        return _interrupted(job, trainer, stop)
    except UserError:
        if trainer.is_global_zero:
            job.run.update(status="failed")
        raise
    return 0


def _interrupted(job: Job, trainer: L.Trainer, stop: Interrupted) -> int:
    if not trainer.is_global_zero:
        # Rank 0 alone answers for the job: Lightning's observer would take another rank's code for a crash.
        return 0
    job.run.update(status="interrupted")
    print(f"Stopped by {stop}, saved. The same command goes on from there.")
    return stop.exit_code
