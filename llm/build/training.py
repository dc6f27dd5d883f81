"""All that fits a model: the LightningModule, the batches, what watches and saves, and the Trainer."""

import functools
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy

from llm.build.models import adapter, initialise
from llm.build.nodes import Config, instantiate, settings
from llm.build.origins import Origin
from llm.build.tasks import objective
from llm.config import resolve
from llm.config.schema import CheckpointConfig
from llm.data import CorpusDataModule
from llm.data.collators.base import Collator, SampleCost
from llm.data.mixture import AnyCorpus
from llm.data.sampling.view import SampleView
from llm.generation import is_decoder_lm
from llm.model import Transformer, sequence_flops
from llm.train import launch
from llm.train.derive import Derived
from llm.train.hang import HangWatch
from llm.train.loggers import LoggedRun, MetricsCSV, RunLogger
from llm.train.metrics import Meter, Observer, Pause
from llm.train.module import LanguageModule
from llm.train.optimizers import OptimizerFactory, check_strategy
from llm.train.parallelism import Parallelism
from llm.train.profiling import Unprofiled
from llm.train.progress import TrainingProgress
from llm.train.run import Run
from llm.train.saving import Checkpointer, StopRequest
from llm.train.source_losses import SourceLosses


def module(
    config: Config, net: Transformer, origin: Origin, derived: Derived, parallelism: Parallelism
) -> LanguageModule:
    """The LightningModule around `net`."""
    return LanguageModule(
        net,
        objective(config),
        optimizer(config, parallelism),
        instantiate(config["schedule"], config, total_steps=derived.max_steps),
        functools.partial(initialise, origin=origin, seed=config["seed"]),
        derived.compile,
    )


def optimizer(config: Config, parallelism: Parallelism) -> OptimizerFactory:
    """What makes the config's optimizer of named parameters.

    Raises:
        ConfigError: it does not work under that parallelism.
    """
    make = resolve(config["optimizer"]["_target_"], config["packages"])
    check_strategy(make, parallelism)
    return functools.partial(make, **settings(config["optimizer"]))


def datamodule(
    config: Config,
    corpus: AnyCorpus,
    collate: Collator,
    train_view: SampleView,
    validation_view: SampleView,
    derived: Derived,
) -> CorpusDataModule:
    """The batches that `collate` makes of the samples of a corpus.

    Raises:
        ConfigError: a mixture's sources end before training does.
    """
    batch_size, repeat_batch = config["data"]["batch_size"], config["data"]["repeat_batch"]
    train_view.require(derived.max_steps * batch_size)
    return CorpusDataModule(
        corpus,
        collate,
        train_view,
        validation_view,
        batch_size=batch_size,
        micro_batch_size=derived.micro_batch_size,
        repeat_batch=repeat_batch,
    )


def part_losses(data: CorpusDataModule) -> list[L.Callback]:
    """What tells the losses of a mixture's sources apart."""
    train, validation = data.train_view, data.validation_view
    return [SourceLosses(train.source_names, train, validation)] if train.source_names else []


def meter(
    corpus: AnyCorpus,
    net: Transformer,
    data: CorpusDataModule,
    sample_cost: SampleCost,
    peak: float | None,
    observers: Sequence[Observer],
) -> Meter:
    """What measures training, whose samples cost `sample_cost`."""
    mean = sample_cost.mean
    flops = sequence_flops(net.config, mean.inputs, read=mean.source, scored=mean.targets)
    return Meter(
        tokens_per_step=round(data.batch_size * mean.counted),
        bytes_per_token=_bytes_per_target(corpus, net, data, mean.targets),
        flops_per_token=flops / mean.counted,
        peak_flops=peak,
        observers=observers,
    )


def _bytes_per_target(
    corpus: AnyCorpus, net: Transformer, data: CorpusDataModule, scored: float
) -> float | None:
    """The bytes of text that a scored token stands for, where the bits of all of them add up to the text's.

    `scored` is how many a sample has, on average.
    """
    of_sample = data.train_view.target_bytes(corpus.tokenizer)
    if of_sample is not None:
        return of_sample / scored
    is_of_text = is_decoder_lm(net) and not getattr(data.collate, "of_preferences", False)
    return corpus.bytes_per_token if is_of_text else None


def progress(config: Config) -> TrainingProgress:
    """What a person sees of training."""
    bar = TrainingProgress(config["checkpoint"]["every_n_steps"])
    if not config["trainer"]["enable_progress_bar"]:
        bar.disable()
    return bar


def hang_watch(config: Config, run: Run) -> list[HangWatch]:
    """What ends a job that no longer gets on, where the config wants that."""
    seconds = config["hang_timeout"]
    return [] if seconds is None else [HangWatch(run, seconds)]


def checkpointer(
    config: Config,
    run: Run,
    net: Transformer,
    data: CorpusDataModule,
    resume_from: Path | None,
    pause: Pause,
    stop: StopRequest,
) -> Checkpointer:
    """What saves and restores."""
    beside = adapter(config)
    about = {
        **({} if beside is None else {"adapter": beside.settings()}),
        "model": net.config.to_dict(),
        "tokenizer": data.corpus.tokenizer_hash,
        "data": data.corpus.fingerprint,
    }
    settings = CheckpointConfig(**config["checkpoint"])
    return Checkpointer(run, net, data, about, resume_from, pause, stop, settings)


def loggers(config: Config, run: Run, resume_step: int) -> list[RunLogger]:
    """metrics.csv always, and what `logger` names beside it."""
    about = LoggedRun(run.folder, run.record["id"], config["name"], config, resume_step)
    nodes, packages = config["logger"].values(), config["packages"]
    others = [node for node in nodes if resolve(node["_target_"], packages) is not MetricsCSV]
    return [MetricsCSV(about), *(instantiate(node, config, run=about) for node in others)]


def trainer(
    config: Config, run: Run, derived: Derived, callbacks: list[L.Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """Lightning's Trainer, with our callbacks and loggers beside those that the config names."""
    keys = _trainer_keys(config, derived)
    if derived.compile and derived.accelerator == "cpu":
        # Compiled for a CPU, threads add up an embedding's gradients in whatever order they come, and a resumed run
        # would no longer equal one that was never stopped.
        keys["deterministic"] = keys["deterministic"] or "warn"
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    extra = [instantiate(node, config) for node in config["callbacks"].values()]
    # Lightning's own way to requeue would save a checkpoint of another format, on another signal.
    slurm = SLURMEnvironment(auto_requeue=False) if launch.by_srun() else None
    return L.Trainer(
        **keys,
        strategy=strategy(config),
        plugins=slurm,
        callbacks=[*callbacks, *extra],
        logger=list(loggers),
        profiler=Unprofiled(),
        default_root_dir=run.folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def strategy(config: Config) -> Strategy | str:
    """Lightning's strategy: one of ours, or of the user's own, as its node in `conf/strategy` says, or the name of one."""
    node = config["trainer"]["strategy"]
    return instantiate(node, config) if isinstance(node, dict) else node


def _trainer_keys(config: Config, derived: Derived) -> Config:
    """The Trainer's arguments but the strategy, whose counts of batches are made of the config's counts of steps."""
    keys = {key: value for key, value in config["trainer"].items() if key != "strategy"}
    interval, limit = keys["val_check_interval"], keys["limit_val_batches"]
    return keys | {
        "accelerator": derived.accelerator,
        "devices": keys["devices"] if isinstance(keys["devices"], list) else derived.devices,
        "precision": derived.precision,
        "max_steps": derived.max_steps,
        "max_epochs": -1,
        # Our own bar shows nothing where the config says so.
        "enable_progress_bar": True,
        "accumulate_grad_batches": derived.accumulation,
        # One endless epoch: an epoch of the corpus is a matter of the sample order alone.
        "check_val_every_n_epoch": None,
        "val_check_interval": (interval or derived.max_steps + 1) * derived.accumulation,
        "limit_val_batches": limit * derived.accumulation if isinstance(limit, int) else limit,
    }
