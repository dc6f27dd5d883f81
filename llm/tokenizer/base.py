"""What a tokenizer is: text to ids and back, special tokens that never come from text, and a hash."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np

from llm.errors import ConfigError, DataError
from llm.tokenizer import folder

UNKNOWN, PAD, END_OF_TEXT, MASK = "<unk>", "<pad>", "<|endoftext|>", "<mask>"
# The later ones cost a row each and let one vocabulary serve masking, pairs of texts and chat.
SPECIAL_TOKENS = (UNKNOWN, PAD, END_OF_TEXT, MASK, "<cls>", "<sep>", "<|im_start|>", "<|im_end|>")


CHAT_TEMPLATE = "chat_template.jinja"
# What stands for a hidden span of a text, counted from 0; the names are those of T5's tokenizers.
SENTINEL = "<extra_id_{}>"


class Tokenizer(Protocol):
    """Text to ids and back; the ids of special tokens are added by the program alone."""

    @property
    def vocab_size(self) -> int:
        """How many ids there are: every id is below it."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """The id of each special token by its spelling."""

    @property
    def end_of_text(self) -> int:
        """The id that precedes every document and ends generation."""

    @property
    def chat_template(self) -> str | None:
        """How chats are written down, in Jinja; None for a model that was never meant to chat."""

    @property
    def hash(self) -> str:
        """SHA-256 of what determines the ids."""

    def with_chat_template(self, template: str | None) -> "Tokenizer":
        """The same tokenizer with this template, or with none."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, no special one among them; DataError on a lone surrogate."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text as int32 arrays, faster than one call a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens give nothing, and bytes that aren't UTF-8 U+FFFD."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of `ids`, one id after the other; special and unknown ids give none."""

    def save(self, path: Path) -> None:
        """Write the folder that `load_tokenizer` reads."""


class TokenizerSpec(Protocol):
    """How to come by a tokenizer: what a file in conf/tokenizer describes."""

    @property
    def needs_text(self) -> bool:
        """Whether `build` reads its texts."""

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """Train on `texts` or load; the same texts and settings give the same hash."""

    def fingerprint(self) -> str:
        """SHA-256 of what determines the outcome besides the texts."""


def mask_token(tokenizer: Tokenizer) -> int:
    """The id of the token that hides another; a ConfigError where there is none."""
    for name in (MASK, "[MASK]"):
        if name in tokenizer.special_tokens:
            return tokenizer.special_tokens[name]
    raise ConfigError(f"The tokenizer has no {MASK} or [MASK] among {', '.join(tokenizer.special_tokens)}.")


def sentinels(tokenizer: Tokenizer) -> list[int]:
    """The ids of the tokens that stand for hidden spans, in their order; empty where there are none."""
    found: list[int] = []
    while (name := SENTINEL.format(len(found))) in tokenizer.special_tokens:
        found.append(tokenizer.special_tokens[name])
    return found


def hiding_tokens(tokenizer: Tokenizer) -> list[int]:
    """The ids of all tokens that hide something, as far as there are any."""
    masks = [tokenizer.special_tokens[name] for name in (MASK, "[MASK]") if name in tokenizer.special_tokens]
    return masks + sentinels(tokenizer)


def start_token(tokenizer: Tokenizer) -> int:
    """The id that a decoder with a source begins with: the padding token, as T5 does, else the end of text."""
    return next(
        (tokenizer.special_tokens[name] for name in (PAD, "[PAD]") if name in tokenizer.special_tokens),
        tokenizer.end_of_text,
    )


def framed(tokenizer: Tokenizer, ids: list[int], longest: int | None = None) -> list[int]:
    """The ids of a text as a whole, the marks of its beginning and end around it; its end is cut to `longest` in all.

    These are [CLS] and [SEP] where the tokenizer has them, as BERT's, else ends of text.
    """
    begin, end = ends_of(tokenizer)
    return [begin, *(ids if longest is None else ids[: longest - 2]), end]


def ends_of(tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids around a text that is read as a whole."""
    end = tokenizer.end_of_text
    return tokenizer.special_tokens.get("[CLS]", end), tokenizer.special_tokens.get("[SEP]", end)


class TableTokenizer:
    """A tokenizer whose every id stands for fixed bytes, kept as the files that a folder holds."""

    kind: ClassVar[str]

    def __init__(self, files: Mapping[str, bytes], special_tokens: Mapping[str, int], end_of_text: int):
        self.files = dict(files)
        self.special_tokens = dict(special_tokens)
        self.end_of_text = end_of_text
        self._table = self._bytes_by_id()
        self.vocab_size = max(*self._table, *self.special_tokens.values(), self.end_of_text) + 1
        if self.vocab_size > folder.MAX_IDS:
            raise DataError(
                f"The tokenizer has the id {self.vocab_size - 1}: {folder.MAX_IDS - 1} is the largest."
            )

    def _bytes_by_id(self) -> dict[int, bytes]:
        """The bytes of every id that stands for text; the place to load what encoding needs."""
        raise NotImplementedError

    def _ids(self, text: str) -> np.ndarray:
        """The int32 ids of valid text."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, no special one among them; DataError on a lone surrogate."""
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text as int32 arrays."""
        for text in texts:
            utf8(text)
        return [self._ids(text) for text in texts]

    @property
    def chat_template(self) -> str | None:
        """How chats are written down, in Jinja; None for a model that was never meant to chat."""
        template = self.files.get(CHAT_TEMPLATE)
        return None if template is None else template.decode()

    def with_chat_template(self, template: str | None) -> Self:
        """The same tokenizer with this template, or with none."""
        others = {name: content for name, content in self.files.items() if name != CHAT_TEMPLATE}
        own = {} if template is None else {CHAT_TEMPLATE: template.encode()}
        return type(self)(others | own, self.special_tokens, self.end_of_text)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of kind, special tokens and files."""
        return folder.description(self.kind, self.files, self.special_tokens, self.end_of_text)["hash"]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of `ids`, one id after the other; special and unknown ids give none."""
        lookup = self._table.get
        return b"".join([lookup(id_, b"") for id_ in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens give nothing, and bytes that aren't UTF-8 U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, path: Path) -> None:
        """Write the folder that `load_tokenizer` reads."""
        folder.save(path, self.kind, self.files, self.special_tokens, self.end_of_text)

    def __getstate__(self) -> tuple[dict[str, bytes], dict[str, int], int]:
        return self.files, self.special_tokens, self.end_of_text

    def __setstate__(self, state: tuple[dict[str, bytes], dict[str, int], int]) -> None:
        type(self).__init__(self, *state)


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of `text`; DataError on a lone surrogate, which has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text holds a lone surrogate, {text[error.start]!r}, at character {error.start}: it is no "
            "valid Unicode. Read its file as UTF-8 with errors='replace', or remove the character."
        ) from error


def check_special_tokens(special_tokens: Sequence[str]) -> tuple[str, ...]:
    """`special_tokens` as a tuple: distinct, not empty, with the three that every part relies on."""
    names = tuple(special_tokens)
    if missing := [name for name in (UNKNOWN, PAD, END_OF_TEXT) if name not in names]:
        raise ConfigError(f"tokenizer.special_tokens must hold {' '.join(missing)}; it is {list(names)}.")
    if len(set(names)) != len(names) or not all(names):
        raise ConfigError(f"tokenizer.special_tokens must be distinct and not empty; it is {list(names)}.")
    return names
