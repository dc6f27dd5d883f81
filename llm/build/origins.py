"""What a run begins as: a model of the config, or one that is there already."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from llm.build.nodes import Config
from llm.build.tokenizers import ChattingSpec, FixedTokenizer, chatting, joins_pairs, untemplated_spec
from llm.errors import ConfigError
from llm.model import ModelConfig
from llm.tokenizer import PretrainedSpec, TokenizerSpec, load_tokenizer, writes_targets
from llm.tokenizer.chat import PAIR
from llm.train import checkpoint
from llm.train.run import Run

# A task for each architecture, for those who took the wrong one.
TASKS = {
    "decoder": "task=causal_lm",
    "encoder": "task=masked_lm",
    "encoder_decoder": "task=span_corruption or, on pairs, task=seq2seq",
}
# Trained vectors, one a position.
POSITIONS = "embedding.positions.weight"
# By how many tokens that stand for nothing Hugging Face's models exceed their tokenizers: 399 in Qwen2.5's larger ones.
MOST_FILLED_UP = 512


@dataclass(frozen=True)
class Origin:
    """What a run begins as: a config of the model, a way to its tokenizer, and weights where they are not drawn anew.

    `model_config` lacks the vocabulary's size where the tokenizer decides it.
    """

    model_config: ModelConfig
    tokenizer: TokenizerSpec
    weights: dict[str, Tensor] = field(default_factory=dict)

    def sized(self, vocab_size: int) -> ModelConfig:
        """The config for a tokenizer of `vocab_size` ids; weights that are there have theirs, which may be filled up."""
        return self.model_config if self.weights else self.model_config.with_vocab_size(vocab_size)

    def shortened(self, length: int) -> "Origin":
        """The same model with a context of `length` tokens, without the trained positions behind it.

        Raises:
            ConfigError: there is no model yet, or its context is shorter.
        """
        if not self.weights:
            raise ConfigError(
                f"context_length={length}: it is for a model that init_from= brings; model.context_length= is a new one's."
            )
        if length > self.model_config.context_length:
            raise ConfigError(
                f"context_length={length}: the model that init_from= brings has "
                f"{self.model_config.context_length:,} positions, and this can only shorten them."
            )
        model_config = dataclasses.replace(self.model_config, context_length=length)
        fewer = {name: self.weights[name][:length] for name in {POSITIONS} & self.weights.keys()}
        return dataclasses.replace(self, model_config=model_config, weights=self.weights | fewer)


def origin(config: Config, run: Run) -> Origin:
    """Where the config starts from: `model` and `tokenizer`, or all of `init_from`.

    A `run` that began from something and has a checkpoint goes on with its own, wherever its origin is by now.

    Raises:
        ConfigError: the task needs another architecture, or see `Origin.shortened`.
    """
    found = _origin(config, run)
    if config["context_length"] is not None:
        found = found.shortened(config["context_length"])
    found = dataclasses.replace(found, tokenizer=_templated(config, found))
    has, wanted = found.model_config.architecture, config["task"]["architectures"]
    if has not in wanted:
        raise ConfigError(
            f"The model is of architecture={has}, and the task needs architecture={' or '.join(wanted)}: "
            f"{TASKS[has]} trains such a model."
        )
    return found


def _templated(config: Config, found: Origin) -> TokenizerSpec:
    """The way to the tokenizer with the task's template: of a decoder on pairs that of pairs, which no task of texts keeps."""
    if joins_pairs(config, found.model_config.architecture):
        return ChattingSpec(found.tokenizer, PAIR)
    if found.weights and config["task"]["template"] is None:
        tokenizer = found.tokenizer.build(())
        if writes_targets(tokenizer):
            return FixedTokenizer(tokenizer.with_chat_template(None))
    return chatting(config, found.tokenizer)


def _origin(config: Config, run: Run) -> Origin:
    if config["init_from"] is None:
        return Origin(ModelConfig.from_dict(config["model"]), untemplated_spec(config))
    resumes = config["resume"] != "never" and run.exists() and checkpoint.folders(run.checkpoints)
    return read_origin(str(run.folder) if resumes else config["init_from"], None)


def read_origin(name_or_path: str, which: str | None) -> Origin:
    """A model that is there: a run's, of a .gguf file, or of a Hugging Face folder or hub id; a PEFT adapter is folded in.

    `which` names a run's checkpoint, see `checkpoint.find`.
    """
    run = Run(Path(name_or_path).expanduser())
    if run.exists():
        model_config, tensors = checkpoint.read_model(checkpoint.find(run.checkpoints, which))
        return Origin(model_config, FixedTokenizer(load_tokenizer(run.tokenizer)), tensors)
    # What reads other programs' models takes 6 MB, which most runs need not have.
    from llm.hub import from_huggingface, local_folder, peft
    from llm.hub.gguf.reader import from_gguf

    if run.folder.suffix == ".gguf":
        model_config, tensors, tokenizer = from_gguf(run.folder)
        return Origin(model_config, FixedTokenizer(tokenizer), tensors)
    folder = local_folder(name_or_path)
    if peft.is_adapter(folder):
        base = read_origin(peft.base_of(folder), None)
        return dataclasses.replace(base, weights=peft.read(folder, base.model_config, base.weights))
    model_config, tensors = from_huggingface(folder)
    spec = PretrainedSpec(str(folder))
    _check_vocabulary(folder, model_config.vocabulary, spec.build().vocab_size)
    return Origin(model_config, spec, tensors)


def _check_vocabulary(folder: Path, rows: int, ids: int) -> None:
    """Refuse a tokenizer of another vocabulary than the model's; many fill theirs up to a multiple of 64, though."""
    if ids == rows or (ids < rows < ids + MOST_FILLED_UP and rows % 64 == 0):
        return
    raise ConfigError(
        f"init_from={folder}: the model has {rows:,} tokens, and the tokenizer beside it {ids:,}: it is another's. Put "
        "the model's own tokenizer.json there."
    )
