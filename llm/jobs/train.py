"""`llm train`: prepare, begin or go on, fit, and sum up."""

import logging
import uuid
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L

from llm import build
from llm.adapter import frozen_bytes, n_values
from llm.build import Config, Origin
from llm.config import Composed
from llm.data import CorpusDataModule
from llm.data.mixture import AnyCorpus, open_text
from llm.errors import DataError, UserError
from llm.jobs.baseline import HARNESS
from llm.jobs.beside_plan import expected, measured
from llm.jobs.dry_run import show_dry_run
from llm.jobs.ending import finish, read_results, show_end
from llm.jobs.evaluate import check_names
from llm.jobs.job import Choices, Job
from llm.jobs.samples import sample_callbacks
from llm.jobs.scored import Entry
from llm.jobs.show import amount
from llm.malloc import give_back_freed_memory, tune_malloc
from llm.model import Transformer, parameter_count
from llm.redaction import redacted, redacted_text
from llm.report.run import write_report
from llm.train import launch, resume
from llm.train.callbacks import Evaluated, StrategyRecord
from llm.train.derive import Derived, derive
from llm.train.hardware import largest_tensor
from llm.train.loggers import RunLogger
from llm.train.memory import MemoryUse
from llm.train.metrics import Pause, together
from llm.train.module import LanguageModule
from llm.train.rows import EVALUATED
from llm.train.run import Run, environment, flatten, now, versions
from llm.train.saving import Interrupted, StopRequest
from llm.train.sharding import gathered, is_sharded


def run(composed: Composed) -> int:
    """Train as the command says; returns the exit code."""
    config, choices = composed.config, composed.choices
    check_names(config["eval"], config)
    if config["dry_run"]:
        return show_dry_run(config, choices)
    quiet_lightning()
    launch.check_alike({"versions": versions(), "config values": dict(flatten(redacted(config)))})
    run = Run(Path(config["runs_dir"]) / config["name"])
    # Before minutes go into a corpus.
    build.adapter(config)
    build.check_reference(config)
    build.check_installed(config)
    build.check_mixes(config)
    resume.check_something_to_resume(run, config["resume"])
    say = print if launch.rank() == 0 else _nothing
    origin = build.origin(config, run)
    corpus = _corpus(config, origin, run, say)
    model_config = build.model_config_for(config, origin, corpus)
    job = Job(config, choices, run, origin, corpus, model_config)
    # Whatever these refuse is refused before anything is written.
    _check_samples(job, say)
    build.check_layout(config, model_config, job.parallelism)
    if config["adapter"] is not None:
        say(_trained_share(build.model(config, model_config)))
    try:
        return _train(job, say)
    finally:
        launch.forget()
        run.release()


def _check_samples(job: Job, say: Callable[[str], None]) -> None:
    """Say what of the text doesn't fit.

    Raises:
        DataError: nothing does.
    """
    note = job.train_view.note
    if note:
        say(note)
    if not job.train_view.size:
        shorter = (
            f"its training text has {len(job.corpus.train)} tokens, fewer than one window of "
            f"model.context_length={job.model_config.context_length} and its next token: add text, or shorten "
            "the context."
        )
        raise DataError(f"Nothing of {job.corpus.name} is left to train on: {note or shorter}")


def _trained_share(net: Transformer) -> str:
    trained = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    whole = sum(n_values(*named) for named in net.named_parameters())
    told = f"The adapter trains {trained:,} of {whole:,} parameters, {trained / whole:.2%}."
    in_codes, as_floats = frozen_bytes(net)
    if not in_codes:
        return told
    return f"{told} Frozen matrices take {amount(in_codes)}B, and {amount(as_floats)}B in float32."


def _corpus(config: Config, origin: Origin, run: Run, say: Callable[[str], None]) -> AnyCorpus:
    """The corpus of the config; where its text is gone, the one that the run began with."""
    try:
        return build.corpus(config, origin.tokenizer, show=launch.rank() == 0)
    except UserError as error:
        if config["resume"] == "never" or not run.exists():
            raise
        if run.config.get("data") != redacted(config["data"]):
            raise
        try:
            corpus = open_text(run.begun["data"])
        except UserError:
            raise error from None
        folders = ", ".join(str(part.folder) for part in corpus.corpora.values())
        say(f"{error}\nGoing on with the shards that the run began with: {folders}.")
        return corpus


def _train(job: Job, say: Callable[[str], None]) -> int:
    run = job.run
    decision = Decision.of(launch.decide(lambda: _begin(job, say).record()))
    derived = decision.derived
    if decision.step < derived.max_steps:
        if derived.compile:
            say("The first step compiles the model: half a minute or more at first, seconds another time.")
        return _fit(job, decision)
    if launch.rank() == 0:
        say(f"{run.folder} has done its {decision.step} steps; a larger trainer.max_steps goes on.")
        if run.begun["status"] == "finished" and (results := read_results(run)):
            show_end(run, *results)
        else:
            # It ended, by a kill perhaps, before it was summed up.
            finish(job, derived, build.trained_model(run, None)[0], {})
    return 0


def quiet_lightning() -> None:
    """Keep notes on devices, tips and limits off the terminal, and of torch on what costs little; warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # Nothing here changes a block's result in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")


def _nothing(*_: object) -> None:
    """Ranks above 0 are quiet."""


@dataclass(frozen=True)
class Decision:
    """What rank 0 decided for all: where training begins, at a checkpoint or at step 0, and what was left open."""

    step: int
    checkpoint: str | None
    derived: Derived

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Decision":
        """The decision of a record."""
        return cls(record["step"], record["checkpoint"], Derived(**record["derived"]))

    def record(self) -> dict[str, Any]:
        """Plain values, as they are handed to other processes."""
        return asdict(self)


def _begin(job: Job, say: Callable[[str], None]) -> Decision:
    """Hold the run's folder, decide where training starts and what is left open, and write it all down."""
    run, corpus = job.run, job.corpus
    run.hold()
    identity = {"data": corpus.fingerprint, "tokenizer": corpus.tokenizer_hash}
    start = resume.begin(run, job.config, identity, say)
    known = run.begun
    derived = derive(
        job.config,
        job.parallelism,
        job.model_config.context_length,
        samples_per_epoch=job.train_view.size,
        known=known["derived"] if known else {},
    )
    launch.check_world_size(derived.world_size)
    checkpoint = str(start.checkpoint) if start.checkpoint else None
    if start.step < derived.max_steps:
        _write_down(job, derived, known, {"step": start.step, "checkpoint": checkpoint, "time": now()})
    return Decision(start.step, checkpoint, derived)


def _write_down(job: Job, derived: Derived, known: dict[str, Any], resumed_at: dict[str, Any]) -> None:
    """Write what the run is and from where it goes on; run.json first, since it alone makes the folder a run."""
    run, corpus, init_from = job.run, job.corpus, job.config["init_from"]
    resumes = known["resumes"] if known else []
    run.update(
        id=known["id"] if known else uuid.uuid4().hex[:8],
        name=job.config["name"],
        created=known["created"] if known else now(),
        status="running",
        choices=_acting(job),
        **({"init_from": redacted_text(init_from)} if init_from else {}),
        identity={"data": corpus.fingerprint, "tokenizer": corpus.tokenizer_hash},
        data=corpus.record(),
        model=job.model_config.to_dict(),
        parameters=parameter_count(job.model_config),
        derived=derived.record(),
        environment=environment(),
        resumes=[*resumes, resumed_at] if resumed_at["checkpoint"] else resumes,
    )
    corpus.tokenizer.save(run.tokenizer)
    run.write_config(job.config)


def _acting(job: Job) -> Choices:
    """The choices without those that are none, and without what init_from brings in their place."""
    brought = ("model", "tokenizer") if job.config["init_from"] else ()
    return {
        group: choice for group, choice in job.choices.items() if choice is not None and group not in brought
    }


def _fit(job: Job, decision: Decision) -> int:
    derived = decision.derived
    if derived.accelerator == "cpu":
        tune_malloc(largest_tensor(job.model_config, derived.micro_batch_size))
    L.seed_everything(job.config["seed"] + launch.rank(), verbose=False)
    net = build.model(job.config, job.model_config)
    stop, memory = StopRequest(), MemoryUse()
    planned = expected(job, derived, decision.step) if launch.rank() == 0 else {}
    try:
        trainer, module, data = _trainer(job, decision, net, stop, memory)
        stop.listen()
        trainer.fit(module, datamodule=data)
    except Interrupted as signalled:
        return _interrupted(job, signalled)
    except SystemExit:
        # Lightning's answer to a second Ctrl-C, or to a signal before the first step.
        if not stop.signum:
            raise
        _leave(job, "interrupted")
        return 128 + stop.signum
    except BaseException:
        _leave(job, "failed")
        raise
    finally:
        stop.restore()
    if derived.accelerator == "cpu":
        give_back_freed_memory()
    if trainer.is_global_zero:
        # What is left of a sharded model here is a share.
        seen = {**planned, **measured(job.run, memory.peak_bytes)}
        finish(job, derived, build.trained_model(job.run, None)[0] if is_sharded(net) else net, seen)
    return 0


def _trainer(
    job: Job, decision: Decision, net: Transformer, stop: StopRequest, memory: MemoryUse
) -> tuple[L.Trainer, LanguageModule, CorpusDataModule]:
    """Everything that fits, made and put together."""
    config, run, derived = job.config, job.run, decision.derived
    module = build.module(config, net, job.origin, derived, job.parallelism)
    data = build.datamodule(
        config, job.corpus, job.training_collate, job.train_view, job.validation_view, derived
    )
    loggers = build.loggers(config, run, decision.step)
    callbacks = _callbacks(job, decision, net, data, loggers, stop, memory)
    return build.trainer(config, run, derived, callbacks, loggers), module, data


def _callbacks(
    job: Job,
    decision: Decision,
    net: Transformer,
    data: CorpusDataModule,
    loggers: Sequence[RunLogger],
    stop: StopRequest,
    memory: MemoryUse,
) -> list[L.Callback]:
    """What measures, shows, scores and saves while a model trains, in the order in which Lightning calls them."""
    config, run = job.config, job.run
    bar = build.progress(config)
    meter = build.meter(job.corpus, net, data, job.sample_cost, decision.derived.peak_flops, [bar])
    watch = build.hang_watch(config, run)
    pause = together(meter.paused, *(one.unhurried for one in watch))
    resume_from = None if decision.checkpoint is None else Path(decision.checkpoint)
    shows = [bar.show_samples, *(logger.log_samples for logger in loggers)]
    return [
        meter,
        *watch,
        *build.part_losses(data),
        bar,
        StrategyRecord(run),
        memory,
        *sample_callbacks(config, run, net, job.corpus, shows, pause),
        *_evaluated(job, net, pause),
        build.checkpointer(config, run, net, data, resume_from, pause, stop),
    ]


def _evaluated(job: Job, net: Transformer, pause: Pause) -> list[L.Callback]:
    """What scores the model while it trains, by the code that scores it at the end."""
    every = job.config["eval_every_n_steps"]

    def score() -> dict[str, float]:
        with gathered(net):
            return {
                f"{EVALUATED}{_name(one.entry, len(job.corpus.corpora) > 1)}/{metric}": value
                for one in job.evaluate(net, "now")
                for metric, value in one.entry["metrics"].items()
            }

    return [Evaluated(score, every, pause)] if every else []


def _name(entry: Entry, mixed: bool) -> str:
    """What tells an evaluation's figures from another's: its name, and the task or the source that is one of several."""
    of_several = mixed or entry["evaluation"] == HARNESS
    return f"{entry['evaluation']}/{entry['data']}" if of_several else str(entry["evaluation"])


def _leave(job: Job, status: str) -> None:
    """Say in the run's folder how training ended short of its end."""
    if launch.rank() == 0:
        job.run.update(status=status)
        write_report(job.run.folder)


def _interrupted(job: Job, signalled: Interrupted) -> int:
    _leave(job, "interrupted")
    if launch.rank() > 0:
        # Rank 0 alone answers for the job: Lightning's observer would take another rank's code for a crash.
        return 0
    print(f"Stopped by {signalled}, saved. The same command goes on from there.")
    return signalled.exit_code
