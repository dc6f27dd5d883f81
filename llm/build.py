"""The one place that turns config into objects; each function takes a checked, plain config and gives one thing."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.loggers import Logger
from torch import Tensor

from llm.adapter import Adapted, Lora, attach, begun, without_adapters
from llm.config import resolve
from llm.data import Corpus, CorpusDataModule, Source, prepare
from llm.data.collators.base import Collator, Load, Setting
from llm.data.collators.conversations import Conversations, Conversing, bytes_per_target
from llm.data.collators.labels import LabelCollator
from llm.data.collators.preferences import PreferenceCollator
from llm.data.collators.prefix import PrefixCollator
from llm.data.documents import fingerprint
from llm.data.executors.processes import Executor
from llm.data.mixture import Mixed, MixedSamples, Mixture, Share
from llm.data.preparation.pipeline import AnyStep
from llm.data.preparation.prepare import shared_tokenizer
from llm.data.preparation.progress import Bar
from llm.errors import ConfigError
from llm.evaluation.preferences import reference_scores
from llm.files import write_tensors
from llm.generation import goes_on, pack, quantize
from llm.hub import from_huggingface, local_folder, peft
from llm.hub.gguf.reader import from_gguf
from llm.model import ModelConfig, Transformer, init_weights, sequence_flops
from llm.objective.preference import PreferenceLoss
from llm.plan import Layout, TrainingStep, blank
from llm.tokenizer import (
    SENTINEL,
    ByteSpec,
    PretrainedSpec,
    SentencePieceSpec,
    Tokenizer,
    TokenizerSpec,
    default_template,
    load_tokenizer,
)
from llm.tokenizer.chat import CHATML
from llm.train import checkpoint, launch
from llm.train.derive import TENSOR_PARALLEL, Derived
from llm.train.hang import HangWatch
from llm.train.hardware import place
from llm.train.loggers import LoggedRun, MetricsCSV, RunLogger
from llm.train.metrics import Meter, Observer, Pause, precision_dtype
from llm.train.module import LanguageModule, OptimizerFactory
from llm.train.optimizers import check_strategy
from llm.train.parts import PartLosses
from llm.train.progress import TrainingProgress
from llm.train.recompute import recompute
from llm.train.run import Run
from llm.train.saving import Checkpointer, StopRequest
from llm.train.strategies import SPLITTING, ZeroStrategy, check_deepspeed
from llm.train.tensor_parallel import check_divides

Config = dict[str, Any]

CSV_TARGET = f"{MetricsCSV.__module__.rpartition('.')[0]}.{MetricsCSV.__name__}"
# A task for each architecture, for those who took the wrong one.
TASKS = {
    "decoder": "task=causal_lm",
    "encoder": "task=masked_lm",
    "encoder_decoder": "task=span_corruption",
}
# What a model has for its task alone, by the beginning of its weights' names.
TASK_PARTS = ("unembedding.", "pooler.", "label_head.")
# Trained vectors, one a position.
POSITIONS = "embedding.positions.weight"
# By how many tokens that stand for nothing Hugging Face's models exceed their tokenizers: 399 in Qwen2.5's larger ones.
MOST_FILLED_UP = 512
LOADER_KEYS = {"batch_size", "micro_batch_size", "repeat_batch", "steps", "sources", "weight", "epochs"}
# The name of a mixture's source goes into column names and errors.
SOURCE_NAME = re.compile(r"[A-Za-z0-9_-]+")


def settings(node: Config) -> Config:
    """The keys of a node that names its class by `_target_`, without that name."""
    return {key: value for key, value in node.items() if key != "_target_"}


def instantiate(node: Config, config: Config, **arguments: Any) -> Any:
    """Call what `node` names with its keys and `arguments`; nothing outside the allowlist is ever called."""
    return resolve(node["_target_"], config["packages"])(**settings(node), **arguments)


@dataclass(frozen=True)
class FixedTokenizer:
    """The spec of a tokenizer that is there already."""

    tokenizer: Tokenizer
    needs_text: bool = False

    def build(self, texts: Any) -> Tokenizer:
        """The tokenizer; `texts` are not read."""
        return self.tokenizer

    def fingerprint(self) -> str:
        """Its hash."""
        return self.tokenizer.hash


@dataclass(frozen=True)
class ChattingSpec:
    """The spec of a tokenizer that gets a chat template: `template`, or else the one that suits it best."""

    spec: TokenizerSpec
    template: str | None

    @property
    def needs_text(self) -> bool:
        """As the spec below."""
        return self.spec.needs_text

    def build(self, texts: Any) -> Tokenizer:
        """The tokenizer with its template."""
        tokenizer = self.spec.build(texts)
        return tokenizer.with_chat_template(self.template or default_template(tokenizer))

    def fingerprint(self) -> str:
        """That of the spec below, and of what is added to it."""
        return fingerprint({"tokenizer": self.spec.fingerprint(), "template": self.template or CHATML})


@dataclass(frozen=True)
class Origin:
    """What a run begins as: a shape, a way to its tokenizer, and weights where they are not drawn anew.

    `shape` lacks the vocabulary's size where the tokenizer decides it.
    """

    shape: ModelConfig
    tokenizer: TokenizerSpec
    weights: dict[str, Tensor] = field(default_factory=dict)

    def sized(self, vocab_size: int) -> ModelConfig:
        """The shape for a tokenizer of `vocab_size` ids; weights that are there have theirs, which may be filled up."""
        return self.shape if self.weights else self.shape.with_vocab_size(vocab_size)

    def shortened(self, length: int) -> "Origin":
        """The same model with a context of `length` tokens, without the trained positions behind it.

        Raises:
            ConfigError: there is no model yet, or its context is shorter.
        """
        if not self.weights:
            raise ConfigError(
                f"context_length={length}: it is for a model that init_from= brings; model.context_length= is a new one's."
            )
        if length > self.shape.context_length:
            raise ConfigError(
                f"context_length={length}: the model that init_from= brings has {self.shape.context_length:,} positions, "
                "and this can only shorten them."
            )
        shape = dataclasses.replace(self.shape, context_length=length)
        fewer = {name: self.weights[name][:length] for name in {POSITIONS} & self.weights.keys()}
        return dataclasses.replace(self, shape=shape, weights=self.weights | fewer)


def origin(config: Config, run: Run) -> Origin:
    """Where the config starts from: `model` and `tokenizer`, or all of `init_from`.

    A `run` that began from something and has a checkpoint goes on with its own, wherever its origin is by now.

    Raises:
        ConfigError: the task needs another architecture, or see `Origin.shortened`.
    """
    found = _origin(config, run)
    if config["context_length"] is not None:
        found = found.shortened(config["context_length"])
    found = dataclasses.replace(found, tokenizer=chatting(config, found.tokenizer))
    has, wanted = found.shape.architecture, config["task"]["architectures"]
    if has not in wanted:
        raise ConfigError(
            f"The model is of architecture={has}, and the task needs architecture={' or '.join(wanted)}: "
            f"{TASKS[has]} trains such a model."
        )
    return found


def _origin(config: Config, run: Run) -> Origin:
    if config["init_from"] is None:
        return Origin(ModelConfig.from_dict(config["model"]), _tokenizer_spec(config))
    resumes = config["resume"] != "never" and run.exists() and checkpoint.steps(run.checkpoints)
    return started(str(run.folder) if resumes else config["init_from"], None)


def started(start: str, which: str | None) -> Origin:
    """A model that is there: a run's, of a .gguf file, or of a Hugging Face folder or hub id; a PEFT adapter is folded in.

    `which` names a run's checkpoint, see `checkpoint.find`.
    """
    run = Run(Path(start).expanduser())
    if run.exists():
        shape, tensors = checkpoint.read_model(checkpoint.find(run.checkpoints, which))
        return Origin(shape, FixedTokenizer(load_tokenizer(run.tokenizer)), tensors)
    if run.folder.suffix == ".gguf":
        shape, tensors, tokenizer = from_gguf(run.folder)
        return Origin(shape, FixedTokenizer(tokenizer), tensors)
    folder = local_folder(start)
    if peft.is_adapter(folder):
        base = started(peft.base_of(folder), None)
        return dataclasses.replace(base, weights=peft.read(folder, base.shape, base.weights))
    shape, tensors = from_huggingface(folder)
    spec = PretrainedSpec(str(folder))
    _check_vocabulary(folder, shape.vocabulary, spec.build().vocab_size)
    return Origin(shape, spec, tensors)


def _check_vocabulary(folder: Path, rows: int, ids: int) -> None:
    """Refuse a tokenizer of another vocabulary than the model's; many fill theirs up to a multiple of 64, though."""
    if ids == rows or (ids < rows < ids + MOST_FILLED_UP and rows % 64 == 0):
        return
    raise ConfigError(
        f"init_from={folder}: the model has {rows:,} tokens, and the tokenizer beside it {ids:,}: it is another's. Put "
        "the model's own tokenizer.json there."
    )


def tokenizer_spec(config: Config) -> TokenizerSpec:
    """The tokenizer of the config; one that is made here also gets the sentinels or the template that the task needs."""
    return chatting(config, _tokenizer_spec(config))


def chatting(config: Config, spec: TokenizerSpec) -> TokenizerSpec:
    """`spec` with a chat template, where the task is one of chats.

    Raises:
        ConfigError: task.template names a file that can't be read.
    """
    template = config["task"]["template"]
    if template is None:
        return spec
    if template == "auto":
        return ChattingSpec(spec, None)
    try:
        return ChattingSpec(spec, Path(template).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"task.template={template}: it is auto, or a file with a Jinja template ({error})."
        ) from error


def _tokenizer_spec(config: Config) -> TokenizerSpec:
    node = config["tokenizer"]
    spare = [SENTINEL.format(number) for number in range(config["task"]["sentinels"])]
    if spare and "special_tokens" in node:
        node = {**node, "special_tokens": [*node["special_tokens"], *spare]}
    return cast(TokenizerSpec, instantiate(node, config))


def stand_in(spec: TokenizerSpec) -> Tokenizer:
    """A tokenizer with the special tokens of the one that will be made, where that takes a text."""
    own = spec.spec if isinstance(spec, ChattingSpec) else spec
    return ByteSpec(own.special_tokens).build() if isinstance(own, SentencePieceSpec) else own.build(())


def source(data: Config, config: Config) -> Source:
    """Where a `data` node reads its text; the loader's keys in that node are not the source's."""
    found = instantiate({key: value for key, value in data.items() if key not in LOADER_KEYS}, config)
    if config["task"]["template"] is None:
        return found
    return Conversing(found, preferences=_collator_class(config) is PreferenceCollator)


def steps(data: Config, config: Config) -> dict[str, AnyStep]:
    """What a `data` node does to its documents, by name and in order."""
    named = (data["steps"] or {}).items()
    return {name: instantiate(node, config) for name, node in named if node is not None}


def corpus(
    config: Config,
    spec: TokenizerSpec,
    show: bool,
    processes: int | None = None,
    executor: Executor | None = None,
) -> Corpus | Mixture:
    """The prepared corpus of the config's `data`, or its corpora, found again by their fingerprints where they exist."""
    data = config["data"]
    sources = sources_of(data, config)
    with Bar() if show else nullcontext() as bar:
        how: Config = {"processes": processes, "executor": executor, "progress": bar}
        if not sources:
            return prepare(source(data, config), spec, config["shards_dir"], steps=steps(data, config), **how)
        shares = {name: Share(node["weight"], node["epochs"]) for name, node in sources.items()}
        texts = {name: (source(node, config), steps(node, config)) for name, node in sources.items()}
        tokenizer = shared_tokenizer(list(texts.values()), spec, config["shards_dir"], **how)
        fixed = FixedTokenizer(tokenizer)
        corpora = {
            name: prepare(one, fixed, config["shards_dir"], steps=done, **how)
            for name, (one, done) in texts.items()
        }
        return Mixture(corpora, shares)


def sources_of(data: Config, config: Config) -> dict[str, Config]:
    """The sources of a mixture by name; none of any other data.

    Raises:
        ConfigError: a mixture without sources, other data with them, or a name that can't be one.
    """
    is_mixture = resolve(data["_target_"], config["packages"]) is Mixed
    sources = data.get("sources") or {}
    if is_mixture != bool(sources):
        raise ConfigError(
            "data=mixture needs sources: add data.sources.<name>=<choice of data> for each."
            if is_mixture
            else f"data.sources.{next(iter(sources))}: only data=mixture has sources."
        )
    for name in sources:
        if not SOURCE_NAME.fullmatch(name):
            raise ConfigError(f"data.sources.{name}: a name has letters, digits, _ and - alone.")
    return sources


def trained_model(run: Run, which: str | None) -> tuple[Transformer, Path]:
    """A run's model, ready to use, and the checkpoint that it is from (see `checkpoint.find`)."""
    folder = checkpoint.find(run.checkpoints, which)
    shape, tensors = checkpoint.read_model(folder)
    net = Transformer(shape)
    checkpoint.load_weights(net, tensors, folder)
    place(net.eval())
    return net, folder


def adapted_model(run: Run, which: str | None) -> tuple[Transformer, Path]:
    """A run's model with its adapter beside it, on the CPU, and the checkpoint that it is from.

    Raises:
        ConfigError: the run has no adapter.
    """
    folder = checkpoint.find(run.checkpoints, which)
    beside = checkpoint.adapter_of(folder)
    if beside is None:
        raise ConfigError(f"run={run.folder}: it was trained without an adapter.")
    net = Transformer(ModelConfig.from_dict(checkpoint.read_manifest(folder)["model"]))
    beside.attach(net)
    checkpoint.restore_weights(net, folder)
    return net.eval(), folder


def shape_for(config: Config, found: Origin, text: Corpus | Mixture) -> ModelConfig:
    """The shape of the model that is trained: with the tokenizer's vocabulary and, of labelled texts, their labels."""
    make = _collator_class(config)
    shape = dataclasses.replace(found.sized(text.vocab_size), prefix_lm=make is PrefixCollator)
    # A mixture has no labels.
    if isinstance(text, Mixture) or not (isinstance(make, type) and issubclass(make, LabelCollator)):
        return dataclasses.replace(shape, labels=(), labelled="text", number_mean=0.0, number_std=1.0)
    return make.headed(shape, text.train, text.tokenizer)


def _collator_class(config: Config) -> Any:
    return resolve(config["task"]["collator"]["_target_"], config["packages"])


def check_reference(config: Config) -> None:
    """Raise ConfigError where an objective compares with a first model and there is none."""
    if compares(config) and config["init_from"] is None:
        raise ConfigError("task=dpo compares with the model that it starts from: give one by init_from=.")


def objective(config: Config) -> Any:
    """What scores a batch as the task wants it."""
    return instantiate(config["task"]["objective"], config)


def compares(config: Config) -> bool:
    """Whether the task compares a model with the one that training began with."""
    scores = objective(config)
    return isinstance(scores, PreferenceLoss) and scores.needs_reference


def references(config: Config, start: Origin, text: Corpus | Mixture, path: Path) -> dict[str, np.ndarray]:
    """What the first model says of all answers, by stream: computed once, and kept at `path`; empty where none is needed."""
    if not compares(config) or isinstance(text, Mixture):  # which has no preferences
        return {}
    if not path.exists():
        net = Transformer(start.shape)
        checkpoint.load_weights(net, start.weights, Path("init_from"))
        place(net.eval())
        collate = collator(config, text.tokenizer, start.shape)
        streams = [stream for stream in (text.train, text.validation) if len(stream)]
        scores = {stream.name: reference_scores(net, stream, collate) for stream in streams}
        write_tensors(path, {name: torch.from_numpy(array) for name, array in scores.items()})
    return {name: tensor.numpy() for name, tensor in checkpoint.load_tensors(path).items()}


def for_inference(net: Transformer, precision: str, rows: int) -> Transformer:
    """`net` laid out to write `rows` texts at a time, in float32, bfloat16 or by weights of eight bits."""
    return quantize(net) if precision == "int8" else pack(net.to(precision_dtype(precision)), rows)


def usable_model(start: str, which: str | None) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer of what `started` reads, ready to use."""
    found = started(start, which)
    net = Transformer(found.shape)
    checkpoint.load_weights(net, found.weights, Path(start))
    place(net.eval())
    return net, found.tokenizer.build(())


@dataclass(frozen=True)
class Usable:
    """A model and its tokenizer, ready to use; `make` gives the model once `net` is laid out, which others may share."""

    net: Transformer
    tokenizer: Tokenizer
    make: Callable[[Transformer], Transformer] = lambda net: net


def usable_models(starts: Sequence[str], which: str | None) -> list[Usable]:
    """As `usable_model` of each of `starts`, but runs with adapters on one model share its weights.

    That model may be among `starts`, as a run or a Hugging Face folder: its weights decide, not its name. An adapter that
    shares with none is folded in.
    """
    runs = {start: Run(Path(start).expanduser()) for start in starts}
    folders = {start: checkpoint.find(run.checkpoints, which) for start, run in runs.items() if run.exists()}
    adapted = [start for start, folder in folders.items() if checkpoint.adapter_of(folder) is not None]
    if len(starts) == 1:
        adapted = []
    found = {start: Usable(*usable_model(start, which)) for start in starts if start not in adapted}
    # A model whose head was for labels has none for tokens, so that it is the last to begin with.
    has_labels = {
        start: bool(checkpoint.read_manifest(folders[start])["model"].get("labels")) for start in adapted
    }
    for number, start in enumerate(sorted(adapted, key=has_labels.__getitem__)):
        nets = [one.net for one in found.values()]
        found[start] = _adapted(folders[start], load_tokenizer(runs[start].tokenizer), number, nets)
    for start in adapted:
        if sum(one.net is found[start].net for one in found.values()) == 1:
            found[start] = Usable(*usable_model(start, which))
    return [found[start] for start in starts]


def _adapted(folder: Path, tokenizer: Tokenizer, number: int, nets: Sequence[Transformer]) -> Usable:
    """The model of a checkpoint with an adapter, which is put beside the first of `nets` that it was trained beside."""
    shape, tensors = checkpoint.read_parts(folder)
    lora = checkpoint.adapter_of(folder)
    assert lora is not None
    weights = without_adapters(tensors, lora)
    net = next((net for net in nets if _is_beneath(net, shape, weights)), None)
    if net is None:
        net = Transformer(shape)
        checkpoint.load_weights(net, weights, folder)
        place(net.eval())
    attach(net, number, lora, tensors)
    heads = {name: weight for name, weight in weights.items() if name.startswith(TASK_PARTS)}
    return Usable(net, tokenizer, functools.partial(Adapted, number=number, config=shape, heads=heads))


def _is_beneath(net: Transformer, shape: ModelConfig, weights: Mapping[str, Tensor]) -> bool:
    """Whether `net` has these weights, but for the parts of a task where labels tell it."""

    def body(names: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: names[name] for name in names if not (shape.labels and name.startswith(TASK_PARTS))}

    own, others = body(dict(net.named_parameters())), body(weights)
    if _unlabelled(net.config) != _unlabelled(shape) or own.keys() != others.keys():
        return False
    return all(torch.equal(own[name].detach().cpu(), others[name]) for name in own)


def _unlabelled(shape: ModelConfig) -> ModelConfig:
    """A shape without what a task or training alone adds to it."""
    return dataclasses.replace(
        shape, labels=(), labelled="text", number_mean=0.0, number_std=1.0, pooler=False, dropout=0.0
    )


def adapter(config: Config) -> Lora | None:
    """What is trained beside a frozen model; None where its own weights are.

    Raises:
        ConfigError: there is no model to freeze, or the strategy splits what can't be.
    """
    if config["adapter"] is None:
        return None
    if config["init_from"] is None:
        raise ConfigError(
            "adapter: it is trained beside a model that is there already; give one by init_from=."
        )
    beside = cast(Lora, instantiate(config["adapter"], config))
    strategy = config["trainer"]["strategy"]
    if not isinstance(strategy, dict):
        return beside
    if TENSOR_PARALLEL in strategy:
        raise ConfigError(
            "adapter: strategy=fsdp_tp splits the matrices that it stands beside; take strategy=fsdp."
        )
    make = resolve(strategy["_target_"], config["packages"])
    if beside.quantize is not None and isinstance(make, type) and issubclass(make, SPLITTING):
        raise ConfigError(
            f"adapter.quantize={beside.quantize}: matrices in few bits can't be split over processes; take strategy=single or "
            "strategy=ddp, or no adapter.quantize."
        )
    return beside


def model(config: Config, shape: ModelConfig) -> Transformer:
    """A model without storage: where its weights lie is for the strategy to say, and `module` gives them values."""
    beside = adapter(config)
    with torch.device("meta"):
        net = Transformer(shape)
    if beside is not None:
        beside.attach(net)
    recompute(net, config["activation_checkpointing"])
    return net


def check_layout(config: Config, shape: ModelConfig) -> None:
    """Refuse a strategy that can't split such a model evenly.

    Raises:
        ConfigError: see `check_divides`.
    """
    strategy = config["trainer"]["strategy"]
    if isinstance(strategy, dict) and TENSOR_PARALLEL in strategy:
        check_divides(shape, strategy[TENSOR_PARALLEL])


def check_installed(config: Config) -> None:
    """Refuse a strategy whose package is missing.

    Raises:
        ConfigError: see `check_deepspeed`.
    """
    strategy = config["trainer"]["strategy"]
    if isinstance(strategy, dict) and resolve(strategy["_target_"], config["packages"]) is ZeroStrategy:
        check_deepspeed()


def initialise(net: Transformer, start: Origin, seed: int) -> None:
    """Give a model its first weights: those of `start`, else drawn alike on every rank under every strategy.

    Where the labels differ, what each of the two tasks has for itself (the head, the pooler) is drawn anew or left out.
    """
    if start.weights and net.config.labels == start.shape.labels:
        checkpoint.load_weights(net, begun(net, start.weights, seed), Path("init_from"))
        return
    init_weights(net, seed)
    if start.weights:
        parts = {name: p.detach() for name, p in net.named_parameters() if name.startswith(TASK_PARTS)}
        kept = {
            name: weight
            for name, weight in start.weights.items()
            if not name.startswith(TASK_PARTS) or _fits(parts, name, weight)
        }
        checkpoint.load_weights(net, parts | begun(net, kept, seed), Path("init_from"))


def _fits(parts: dict[str, Tensor], name: str, weight: Tensor) -> bool:
    """Whether a part of the task that was trained before is as the new one wants it; labels are never."""
    return name in parts and not name.startswith("label_head.") and parts[name].shape == weight.shape


def module(
    config: Config, net: Transformer, start: Origin, derived: Derived, strategy: str
) -> LanguageModule:
    """The LightningModule around `net`."""
    return LanguageModule(
        net,
        objective(config),
        optimizer(config, strategy),
        instantiate(config["schedule"], config, total_steps=derived.max_steps),
        functools.partial(initialise, start=start, seed=config["seed"]),
        derived.compile,
    )


def optimizer(config: Config, strategy: str) -> OptimizerFactory:
    """What makes the config's optimizer of named parameters.

    Raises:
        ConfigError: it does not work under this strategy.
    """
    make = resolve(config["optimizer"]["_target_"], config["packages"])
    check_strategy(make, strategy)
    return functools.partial(make, **settings(config["optimizer"]))


def layout(config: Config, strategy: str, derived: Derived) -> Layout:
    """How the strategy of the config lays a model out."""
    node = config["trainer"]["strategy"]
    keys = node if isinstance(node, dict) else {}
    return Layout(
        strategy,
        derived.world_size,
        keys.get(TENSOR_PARALLEL, 1),
        keys.get("offload", False),
        derived.accelerator,
    )


def step(
    config: Config, shape: ModelConfig, laid_out: Layout, precision: str, load: Load, micro_batch_size: int
) -> TrainingStep:
    """A training step of the config, to be traced; each process does its share of data.batch_size."""
    recomputed = config["activation_checkpointing"]
    periods = [n for n in (recomputed, shape.global_attention_every) if isinstance(n, int)]
    return TrainingStep(
        model=functools.partial(model, config),
        shape=shape,
        layout=laid_out,
        objective=objective(config),
        optimizer=optimizer(config, laid_out.strategy),
        precision=precision,
        work=load.work,
        batch=functools.partial(blank, load),
        micro_batch_size=micro_batch_size,
        accumulation=max(1, config["data"]["batch_size"] // (laid_out.readers * micro_batch_size)),
        period=math.lcm(*periods),
    )


def collator(config: Config, tokenizer: Tokenizer, shape: ModelConfig) -> Collator:
    """What makes batches as the task wants them."""
    node = config["task"]["collator"]
    make = resolve(node["_target_"], config["packages"])
    return cast(Collator, make(Setting(tokenizer, config["seed"], shape), **settings(node)))


def datamodule(
    config: Config, text: Corpus | Mixture, derived: Derived, shape: ModelConfig
) -> CorpusDataModule:
    """The batches of a corpus."""
    data = CorpusDataModule(
        text,
        collator(config, text.tokenizer, shape),
        context_length=shape.context_length,
        batch_size=config["data"]["batch_size"],
        micro_batch_size=derived.micro_batch_size,
        seed=config["seed"],
        repeat_batch=config["data"]["repeat_batch"],
    )
    if isinstance(data.samples, MixedSamples):
        data.samples.require(derived.max_steps * data.batch_size)
    return data


def part_losses(data: CorpusDataModule) -> list[L.Callback]:
    """What tells the losses of a mixture's sources apart."""
    train, validation = data.samples, data.held_out()
    if not (isinstance(train, MixedSamples) and isinstance(validation, MixedSamples)):
        return []
    return [PartLosses(train.names, train, validation)]


def meter(
    text: Corpus | Mixture,
    net: Transformer,
    data: CorpusDataModule,
    peak: float | None,
    observers: Sequence[Observer],
) -> Meter:
    """What measures training."""
    work = data.collate.work(data.samples)
    flops = sequence_flops(net.config, work.written, read=work.read, scored=work.scored)
    return Meter(
        tokens_per_step=round(data.batch_size * work.tokens),
        bytes_per_token=_bytes_per_target(text, net, data),
        flops_per_token=flops / work.tokens,
        peak_flops=peak,
        observers=observers,
    )


def _bytes_per_target(text: Corpus | Mixture, net: Transformer, data: CorpusDataModule) -> float | None:
    """The bytes of text that a scored token stands for, where the bits of all of them add up to the text's."""
    if isinstance(data.samples, Conversations):
        return bytes_per_target(text.tokenizer, data.samples)
    return text.bytes_per_token if goes_on(net) else None


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
    return Checkpointer(run, net, data, about, resume_from, pause, stop, **config["checkpoint"])


def loggers(config: Config, run: Run, resume_step: int) -> list[RunLogger]:
    """metrics.csv always, and what `logger` names beside it."""
    about = LoggedRun(run.folder, run.record["id"], config["name"], config, resume_step)
    others = [node for node in config["logger"].values() if node["_target_"] != CSV_TARGET]
    return [MetricsCSV(about), *(instantiate(node, config, run=about) for node in others)]


def trainer(
    config: Config, run: Run, derived: Derived, callbacks: list[L.Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """Lightning's Trainer, whose batch counts are made of the config's step counts."""
    keys = dict(config["trainer"])
    interval, limit = keys["val_check_interval"], keys["limit_val_batches"]
    if isinstance(keys["strategy"], dict):
        keys["strategy"] = instantiate(keys["strategy"], config)
    keys.update(
        accelerator=derived.accelerator,
        devices=keys["devices"] if isinstance(keys["devices"], list) else derived.devices,
        precision=derived.precision,
        max_steps=derived.max_steps,
        max_epochs=-1,
        # Our own bar shows nothing where the config says so.
        enable_progress_bar=True,
        accumulate_grad_batches=derived.accumulation,
        # One endless epoch: an epoch of the corpus is a matter of the sample order alone.
        check_val_every_n_epoch=None,
        val_check_interval=(interval or derived.max_steps + 1) * derived.accumulation,
        limit_val_batches=limit * derived.accumulation if isinstance(limit, int) else limit,
    )
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
        plugins=slurm,
        callbacks=[*callbacks, *extra],
        logger=list(loggers),
        default_root_dir=run.folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
