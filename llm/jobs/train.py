"""`llm train`: prepare, begin or go on, fit, and sum up."""

import logging
import os
import shlex
import shutil
import sys
import textwrap
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from llm import build
from llm.build import Config, Origin
from llm.data import Corpus
from llm.errors import UserError
from llm.files import read_json, write_json
from llm.jobs import dry_run
from llm.jobs.evaluate import evaluations
from llm.jobs.show import show_entries
from llm.model import ModelConfig, Transformer, parameter_count
from llm.train import checkpoint, launch, resume
from llm.train.callbacks import StrategyRecord
from llm.train.derive import Derived, derive
from llm.train.report import write_report
from llm.train.run import Run, environment, now
from llm.train.saving import Interrupted

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
    if config["dry_run"]:
        return dry_run.run(config, choices)
    first = launch.rank() == 0
    say = print if first else _nothing
    origin = build.origin(config)
    corpus = build.corpus(config, origin.tokenizer, show=first)
    shape = origin.shape.with_vocab_size(corpus.vocab_size)
    folder = Run(Path(config["runs_dir"]) / config["name"])
    job = Job(config, choices, folder, origin, corpus, shape)
    quiet_lightning()
    try:
        return _train(job, say)
    finally:
        folder.release()


def _train(job: Job, say: Callable[[str], None]) -> int:
    decision = launch.decide(job.run.folder, lambda: _begin(job, say))
    derived = Derived(**decision["derived"])
    if decision["step"] >= derived.max_steps:
        say(f"{job.run.folder} has done its {decision['step']} steps; a larger trainer.max_steps goes on.")
        if launch.rank() == 0:
            _show_end(job.run)
        return 0
    return _fit(job, derived, decision)


def quiet_lightning() -> None:
    """Keep Lightning's notes on devices, tips and limits off the terminal; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")


def _nothing(*_: object) -> None:
    """Ranks above 0 are quiet."""


def _begin(job: Job, say: Callable[[str], None]) -> dict[str, Any]:
    """Hold the run's folder, decide where training starts and what is left open, and write it all down."""
    run, corpus = job.run, job.corpus
    run.hold()
    identity = {
        "data": corpus.fingerprint,
        "tokenizer": corpus.tokenizer_hash,
        "initial weights": job.origin.identity,
    }
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
        id=known["id"] if known else uuid.uuid4().hex[:8],
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
        resumes=[*resumes, {"step": start.step, "checkpoint": checkpoint, "time": now()}]
        if checkpoint
        else resumes,
    )
    return {"checkpoint": checkpoint, "step": start.step, "derived": derived.record()}


def _fit(job: Job, derived: Derived, decision: dict[str, Any]) -> int:
    L.seed_everything(job.config["seed"] + launch.rank(), verbose=False)
    config, run = job.config, job.run
    net = build.model(job.shape, job.origin, config["seed"])
    module = build.module(config, net, derived, job.choices["strategy"])
    data = build.datamodule(config, job.corpus, derived, job.shape.context_length)
    loggers = build.loggers(config, run, decision["step"])
    bar = build.progress(config)
    meter = build.meter(job.corpus, net, data, derived.peak_flops, [bar])
    resume_from = Path(decision["checkpoint"]) if decision["checkpoint"] else None
    shows = [bar.show_samples, *(logger.log_samples for logger in loggers)]
    callbacks = [
        meter,
        bar,
        StrategyRecord(run),
        *build.samples(config, run, net, job.corpus.tokenizer, shows, meter.paused),
        build.checkpointer(config, run, net, data, resume_from, meter.paused),
    ]
    trainer = build.trainer(config, run, derived, callbacks, loggers)
    try:
        trainer.fit(module, datamodule=data)
    except Interrupted as stop:
        return _interrupted(job, trainer, stop)
    except UserError:
        if trainer.is_global_zero:
            run.update(status="failed")
        raise
    if trainer.is_global_zero:
        _finish(job, trainer.global_step, net)
    return 0


def _interrupted(job: Job, trainer: L.Trainer, stop: Interrupted) -> int:
    if not trainer.is_global_zero:
        # Rank 0 alone answers for the job: Lightning's observer would take another rank's code for a crash.
        return 0
    job.run.update(status="interrupted")
    print(f"Stopped by {stop}, saved. The same command goes on from there.")
    return stop.exit_code


def _finish(job: Job, step: int, net: Transformer) -> None:
    """Score the trained model; write evaluation.json, results.json and the report; show how it went."""
    run, config, corpus = job.run, job.config, job.corpus
    last = checkpoint.steps(run.checkpoints)[0]
    held_out = len(corpus.validation) > 1
    entries = (
        evaluations(config["eval"], net, corpus, last, "validation", seed=config["seed"]) if held_out else []
    )
    run.append_evaluation(entries)
    prompt = next(iter(config["samples"]["prompts"]), "")
    examples = step * config["data"]["batch_size"]
    training = {
        "evaluation": "training",
        "data": corpus.name,
        "split": "train",
        "metrics": {"steps": step, "tokens": examples * job.shape.context_length},
        "examples": examples,
        "checkpoint": last.name,
        "sample": prompt + build.written(config, net, corpus.tokenizer, prompt)[0],
        "report": str(run.folder / "report.html"),
        "next": next_command(run),
    }
    write_json(run.results, [*entries, training])
    run.update(status="finished")
    write_report(run.folder)
    _show_end(run)


def _show_end(run: Run) -> None:
    """Print what results.json holds: a sample, the figures, the report and the next command."""
    if not run.results.exists():
        return
    *entries, training = read_json(run.results)
    print(
        f"\nA sample of step {training['metrics']['steps']}:\n{textwrap.indent(training['sample'], '    ')}"
    )
    show_entries(f"{run.folder}, {training['metrics']['tokens']:,} tokens", entries)
    print(f"\nReport:  {training['report']}\nNext:    {training['next']}")


def next_command(run: Run) -> str:
    """What to type to let the model write, in words that work in this shell."""
    beside = Path(sys.executable).with_name("llm")
    found = shutil.which("llm")
    if found and Path(found).resolve() == beside.resolve():
        program = "llm"
    else:
        program = os.path.relpath(beside) if beside.exists() else f"{sys.executable} -m llm"
    return f"{program} generate run={shlex.quote(str(run.folder))} prompt='def main():'"
