"""The way to the tokenizer that a config names, with what its task adds to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from llm.build.nodes import Config, collator_class, instantiate
from llm.data.collators import pair_collator
from llm.data.documents import fingerprint
from llm.errors import ConfigError
from llm.tokenizer import SENTINEL, ByteSpec, SentencePieceSpec, Tokenizer, TokenizerSpec, default_template
from llm.tokenizer.chat import CHATML, PAIR, with_end


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
        given = self.template and with_end(self.template, tokenizer)
        return tokenizer.with_chat_template(given or default_template(tokenizer))

    def fingerprint(self) -> str:
        """That of the spec below, and of what is added to it."""
        return fingerprint({"tokenizer": self.spec.fingerprint(), "template": self.template or CHATML})


def tokenizer_spec(config: Config, architecture: str) -> TokenizerSpec:
    """The tokenizer of the config for a model of an architecture; one that is made here also gets the sentinels or the
    template that the task needs."""
    spec = untemplated_spec(config)
    return ChattingSpec(spec, PAIR) if joins_pairs(config, architecture) else chatting(config, spec)


def joins_pairs(config: Config, architecture: str) -> bool:
    """Whether the task is one of pairs and the model a decoder, whose template writes a pair as one sequence."""
    return architecture == "decoder" and collator_class(config) is pair_collator


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


def untemplated_spec(config: Config) -> TokenizerSpec:
    """The tokenizer of the config with the sentinels that its task needs."""
    node = config["tokenizer"]
    spare = [SENTINEL.format(number) for number in range(config["task"]["sentinels"])]
    if spare and "special_tokens" in node:
        node = {**node, "special_tokens": [*node["special_tokens"], *spare]}
    return cast(TokenizerSpec, instantiate(node, config))


def stand_in(spec: TokenizerSpec) -> Tokenizer:
    """A tokenizer with the special tokens of the one that will be made, where that takes a text."""
    own = spec.spec if isinstance(spec, ChattingSpec) else spec
    return ByteSpec(own.special_tokens).build() if isinstance(own, SentencePieceSpec) else own.build(())
