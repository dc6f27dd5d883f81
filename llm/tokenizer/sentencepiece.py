"""SentencePiece BPE and unigram over exact text: byte fallback, no normalisation, whitespace kept."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import sentencepiece

from llm.bounds import MOST_SAMPLE_BYTES, Count, PositiveShare
from llm.errors import ConfigError, DataError
from llm.tokenizer.base import (
    END_OF_TEXT,
    PAD,
    SPECIAL_TOKENS,
    UNKNOWN,
    TableTokenizer,
    check_special_tokens,
    utf8,
)
from llm.tokenizer.folder import digest
from llm.tokenizer.sample import lines, sample_texts
from llm.tokenizer.words import PADDING, Cuts, WordCache

MODEL_FILE = "sentencepiece.model"
ALGORITHMS = ("bpe", "unigram")
_SPACE = "\u2581"
# Unigram adds up floats by thread, and the model records the number: a fixed one gives one hash.
_TRAINING_THREADS = 8
# A unigram model's scores are multiples of it: sums below 262,144 are then exact in float32, so that ways to cut a text
# that are equally good are equal here and in every other implementation, which all prefer the same one of them.
SCORE_STEP = 1 / 64


class SentencePieceTokenizer(TableTokenizer):
    """A trained model; U+2581, which it writes for a space, is encoded as its three bytes in user text."""

    kind = "sentencepiece"

    def _bytes_by_id(self) -> dict[int, bytes]:
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=self.files[MODEL_FILE])
        self._space_mark = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
        table = {id_: piece.encode() for id_, piece, _ in self.pieces()}
        table |= {self.processor.piece_to_id(f"<0x{byte:02X}>"): bytes([byte]) for byte in range(256)}
        self._cuts, self._words = Cuts(table.values()), WordCache(self._encode_words)
        return table

    @property
    def algorithm(self) -> str:
        """One of `ALGORITHMS`."""
        trained = _proto(self.files[MODEL_FILE]).trainer_spec
        return "bpe" if trained.model_type == trained.BPE else "unigram"

    def pieces(self) -> Iterator[tuple[int, str, float]]:
        """The id, spelling and score of every piece that stands for text of its own: no single byte, no special token."""
        model = self.processor
        for id_ in range(model.vocab_size()):
            if not (model.is_byte(id_) or model.is_control(id_) or model.is_unknown(id_)):
                yield id_, model.id_to_piece(id_).replace(_SPACE, " "), model.get_score(id_)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text as int32 arrays, those of the whole text though it is encoded word by word.

        (For unigram, without the float32 rounding that decides near-ties over a long text.)
        """
        parts = [utf8(text) for text in texts]
        bounds = np.cumsum([0, *map(len, parts)])
        text = b"".join([*parts, PADDING])
        starts = self._cuts.starts(np.frombuffer(text, np.uint8)[: bounds[-1]], bounds)
        ids, counts = self._words.ids(text, starts)
        ends = np.append(0, np.cumsum(counts))[np.searchsorted(starts, bounds)].tolist()
        return [ids[start:end] for start, end in pairwise(ends)]

    def _encode_words(self, words: list[str]) -> list[list[int]]:
        marked = [number for number, word in enumerate(words) if _SPACE in word]
        encoded = self.processor.encode(words, num_threads=1)
        for number in marked:
            encoded[number] = self.encode_plainly(words[number])
        return encoded

    def encode_plainly(self, text: str) -> list[int]:
        """The ids of `text` by SentencePiece alone: what `encode` must equal, and slower."""
        first, *others = [self.processor.encode(part) for part in text.split(_SPACE)]
        return first + [id_ for part in others for id_ in (*self._space_mark, *part)]


@dataclass(frozen=True)
class SentencePieceSpec:
    """conf/tokenizer/bpe.yaml and unigram.yaml: what a SentencePiece model is trained with.

    `sample_bytes` bounds the text that it is trained on, drawn evenly from all of it; 128 MiB at most.
    """

    algorithm: str
    vocab_size: Count
    special_tokens: Sequence[str] = SPECIAL_TOKENS
    sample_bytes: Count = 16_000_000
    character_coverage: PositiveShare = 0.9995
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
        if not 1 <= self.sample_bytes <= MOST_SAMPLE_BYTES:
            raise ConfigError(
                f"tokenizer.sample_bytes is {self.sample_bytes}; it must be from 1 to {MOST_SAMPLE_BYTES} (128 MiB): no more "
                "of a corpus is read for its tokenizer."
            )

    def fingerprint(self) -> str:
        """SHA-256 of what determines the outcome besides the texts."""
        rounding = [SCORE_STEP] if self.algorithm == "unigram" else []
        return digest(["sentencepiece", asdict(self), *rounding])

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
        return _rounded(model.getvalue()) if self.algorithm == "unigram" else model.getvalue()

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


def _proto(model: bytes) -> Any:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined] # 2 MB, to train one

    return ModelProto.FromString(model)


def _rounded(model: bytes) -> bytes:
    """A trained model with scores that are multiples of `SCORE_STEP`."""
    proto = _proto(model)
    for piece in proto.pieces:
        piece.score = round(piece.score / SCORE_STEP) * SCORE_STEP
    return proto.SerializeToString(deterministic=True)
