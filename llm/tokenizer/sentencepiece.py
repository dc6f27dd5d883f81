"""SentencePiece BPE and unigram over exact text: byte fallback, no normalisation, whitespace kept."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sentencepiece

from llm.errors import ConfigError, DataError
from llm.tokenizer.base import (
    END_OF_TEXT,
    PAD,
    SPECIAL_TOKENS,
    UNKNOWN,
    TableTokenizer,
    check_special_tokens,
)
from llm.tokenizer.folder import digest
from llm.tokenizer.sample import lines, sample_texts

MODEL_FILE = "sentencepiece.model"
ALGORITHMS = ("bpe", "unigram")
_SPACE = "\u2581"
# No piece holds a space after another character, another character after a newline (see sample.py), or an
# ASCII letter beside another ASCII character (SentencePiece splits by script): text cut at these places
# has the ids of the whole (for unigram, without the float32 rounding that decides near-ties over a long
# text), and each word need be encoded only once.
_PUNCTUATION = r"[\x00-\x09\x0b-\x1f!-@\[-`{-\x7f]"
_ASCII_ENDS = r"(?![^\x00-\x7f])"
_WORDS = re.compile(
    rf" *+(?:[A-Za-z]++{_ASCII_ENDS}|{_PUNCTUATION}++{_ASCII_ENDS}\n*|[^ \n]+\n*)| +\n*|\n+"
).findall
# Unigram adds up floats by thread, and the model records the number: a fixed one gives one hash.
_TRAINING_THREADS = 8


class _WordCache(dict[str, bytes]):
    """The ids of each word as int32 bytes, computed when first asked for."""

    max_words, max_length = 200_000, 64

    def __init__(self, tokenizer: "SentencePieceTokenizer"):
        self._encode_word = tokenizer.encode_word

    def __missing__(self, word: str) -> bytes:
        ids = np.array(self._encode_word(word), np.int32).tobytes()
        if len(word) <= self.max_length:
            if len(self) >= self.max_words:
                self.clear()
            self[word] = ids
        return ids


class SentencePieceTokenizer(TableTokenizer):
    """A trained model; U+2581, which it writes for a space, is encoded as its three bytes in user text."""

    kind = "sentencepiece"

    def _bytes_by_id(self) -> dict[int, bytes]:
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=self.files[MODEL_FILE])
        self._space_mark = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
        self._cache = _WordCache(self)
        return dict(self._pieces())

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        model = self.processor
        for id_ in range(model.vocab_size()):
            piece = model.id_to_piece(id_)
            if model.is_byte(id_):
                yield id_, bytes([int(piece[3:5], 16)])
            elif not (model.is_control(id_) or model.is_unknown(id_)):
                yield id_, piece.replace(_SPACE, " ").encode()

    def encode_word(self, word: str) -> list[int]:
        """The ids of a piece of text, without the cache."""
        ids: list[int] = []
        for index, part in enumerate(word.split(_SPACE)):
            ids += self._space_mark if index else ()
            ids += self.processor.encode(part)
        return ids

    def _ids(self, text: str) -> np.ndarray:
        return np.frombuffer(b"".join(map(self._cache.__getitem__, _WORDS(text))), np.int32)


@dataclass(frozen=True)
class SentencePieceSpec:
    """conf/tokenizer/bpe.yaml and unigram.yaml: what a SentencePiece model is trained with.

    `sample_bytes` bounds the text that it is trained on, drawn evenly from all of it.
    """

    algorithm: str
    vocab_size: int
    special_tokens: Sequence[str] = SPECIAL_TOKENS
    sample_bytes: int = 16_000_000
    character_coverage: float = 0.9995
    needs_text = True

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"tokenizer.algorithm is {self.algorithm!r}; it must be one of {ALGORITHMS}.")
        object.__setattr__(self, "special_tokens", check_special_tokens(self.special_tokens))
        taken = 256 + len(self.special_tokens)
        if self.vocab_size <= taken:
            raise ConfigError(
                f"tokenizer.vocab_size is {self.vocab_size}; it must be above {taken}: 256 bytes and "
                f"{len(self.special_tokens)} special tokens come first."
            )
        if self.sample_bytes < 1:
            raise ConfigError(f"tokenizer.sample_bytes is {self.sample_bytes}; it must be at least 1.")

    def fingerprint(self) -> str:
        """SHA-256 of what determines the outcome besides the texts."""
        return digest(["sentencepiece", asdict(self)])

    def build(self, texts: Iterable[str]) -> SentencePieceTokenizer:
        """Train on `texts`; DataError where they are empty or too small for `vocab_size`."""
        sample = sample_texts(texts, self.sample_bytes)
        if not any(chunk.strip(_SPACE + "\0 \t\r\n") for chunk in sample):
            raise DataError("The tokenizer has no text to learn from: every document is empty or blank.")
        model = self._train(sample)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        special_tokens = {name: processor.piece_to_id(name) for name in self.special_tokens}
        return SentencePieceTokenizer({MODEL_FILE: model}, special_tokens, special_tokens[END_OF_TEXT])

    def _train(self, sample: Sequence[str]) -> bytes:
        model = io.BytesIO()
        # SentencePiece strips newlines from the end of what it is given; a space keeps them.
        sentences = (line + " " for line in lines(sample))
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=sentences, model_writer=model, **self._options()
            )
        except RuntimeError as error:
            raise self._training_error(str(error)) from error
        return model.getvalue()

    def _options(self) -> dict[str, Any]:
        others = [name for name in self.special_tokens if name not in (UNKNOWN, PAD)]
        return {
            "model_type": self.algorithm,
            "vocab_size": self.vocab_size,
            "character_coverage": self.character_coverage,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,
            "control_symbols": others,
            "unk_id": 0,
            "pad_id": 1,
            "bos_id": -1,
            "eos_id": -1,
            "unk_piece": UNKNOWN,
            "pad_piece": PAD,
            "num_threads": _TRAINING_THREADS,
            "max_sentence_length": 1 << 20,
            "minloglevel": 3,
        }

    def _training_error(self, message: str) -> DataError:
        if largest := re.search(r"set it to a value <= (\d+)", message):
            return DataError(
                f"tokenizer.vocab_size={self.vocab_size} is larger than this text allows: the largest that works "
                f"is tokenizer.vocab_size={largest[1]}. Lower it, or train on more text."
            )
        if smallest := re.search(r"smaller than required_chars.*?(\d+) vs (\d+)", message):
            return DataError(
                f"tokenizer.vocab_size={self.vocab_size} is too small for the characters of this text: set at least "
                f"tokenizer.vocab_size={smallest[2]}, or lower tokenizer.character_coverage."
            )
        return DataError(f"SentencePiece could not train on this text: {message}")
