"""The byte tokenizer: an id a byte, after the special tokens; nothing to train."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llm.tokenizer.base import END_OF_TEXT, SPECIAL_TOKENS, TableTokenizer, check_special_tokens
from llm.tokenizer.folder import digest


class ByteTokenizer(TableTokenizer):
    """Byte b of the UTF-8 text has the id `len(special_tokens) + b`."""

    kind = "byte"

    def _bytes_by_id(self) -> dict[int, bytes]:
        first = len(self.special_tokens)
        return {first + byte: bytes([byte]) for byte in range(256)}

    def _ids(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + len(self.special_tokens)


@dataclass(frozen=True)
class ByteSpec:
    """conf/tokenizer/byte.yaml: 256 bytes and the special tokens."""

    special_tokens: Sequence[str] = SPECIAL_TOKENS
    needs_text = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "special_tokens", check_special_tokens(self.special_tokens))

    def build(self, texts: Iterable[str] = ()) -> ByteTokenizer:
        """The tokenizer; `texts` are not read."""
        special_tokens = {name: id_ for id_, name in enumerate(self.special_tokens)}
        return ByteTokenizer({}, special_tokens, special_tokens[END_OF_TEXT])

    def fingerprint(self) -> str:
        """SHA-256 of what determines the outcome."""
        return digest(["byte", *self.special_tokens])
