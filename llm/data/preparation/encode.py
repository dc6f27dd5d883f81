"""One piece of a corpus from text to tokens: what a worker process does, whole or not at all."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm.data.corpus import token_dtype
from llm.data.documents import BETWEEN, BETWEEN_WORDS, Document, LeftOut, Part, Piece, Split
from llm.data.documents.messages import conversations_of, is_conversation
from llm.data.documents.verbatim import VERBATIM, as_ids
from llm.data.files.cutting import chunks
from llm.data.preparation.numbered import HashedFile, NumberedFiles
from llm.data.preparation.survey import Survey
from llm.errors import DataError
from llm.files import read_json, sha256, write_json
from llm.redaction import redacted_text

if TYPE_CHECKING:
    from llm.tokenizer import Tokenizer

BATCH_BYTES = 1 << 22
LONGEST_KEPT = 5
# A row is a chunk of a document. A digest of 0 stands for a document that can't be a duplicate.
ROW = np.dtype([("digest", "<u8"), ("bytes", "<u8"), ("tokens", "<u8"), ("held_out", "u1"), ("starts", "u1")])


@dataclass(frozen=True)
class PieceFiles(NumberedFiles):
    """The tokens of a piece and the table of its chunks."""

    @property
    def tokens(self) -> Path:
        """Token ids of both streams, in the order of the text."""
        return self.path("tokens.bin")

    @property
    def rows(self) -> Path:
        """The table of chunks, `ROW` each."""
        return self.path("rows.bin")

    def finished(self) -> dict[str, Any] | None:
        """The record, if the piece is whole and undamaged."""
        try:
            record = dict(read_json(self.record))
            whole = record["tokens_sha256"] == sha256(self.tokens) and record["rows_sha256"] == sha256(
                self.rows
            )
        except (OSError, ValueError, KeyError):
            return None
        return record if whole else None


@dataclass
class Counts:
    """What a piece held, for the report and the progress."""

    documents: int = 0
    n_bytes: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    longest: list[tuple[int, str, str]] = field(default_factory=list)
    survey: Survey = field(default_factory=Survey)

    def add(self, document: Document) -> None:
        """Count a document, or a part of one."""
        self.n_bytes += len(document.data)
        if document.offset == 0:
            self.documents += 1
            self.survey.add(document)
            self.longest = sorted(
                [*self.longest, (document.total, document.id, document.digest)], reverse=True
            )[:LONGEST_KEPT]


def kept_parts(piece: Piece, split: Split, counts: Counts) -> Iterator[Part]:
    """The piece's text by stream, in chunks that a tokenizer takes at once."""
    for document in piece.documents(counts.left_out):
        if not document.data:
            counts.left_out.add("empty")
            continue
        counts.add(document)
        for part in split.parts(document):
            yield from _chunk(part)


def _chunk(part: Part) -> Iterator[Part]:
    whole = part.document
    if is_conversation(whole) or VERBATIM in whole.data:
        yield part
        return
    for number, data in enumerate(chunks(whole.data)):
        yield Part(
            part.held_out, part.starts and number == 0, Document(whole.id, data, 0, whole.total, whole.digest)
        )


def _batches(parts: Iterator[Part]) -> Iterator[list[Part]]:
    batch: list[Part] = []
    n_bytes = 0
    for part in parts:
        batch.append(part)
        n_bytes += len(part.document.data)
        if n_bytes >= BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def encode_piece(piece: Piece, split: Split, tokenizer: "Tokenizer", files: PieceFiles) -> dict[str, Any]:
    """Tokenize a piece into its files; returns its record."""
    counts = Counts()
    dtype = token_dtype(tokenizer.vocab_size)
    with HashedFile(files.tokens) as tokens, HashedFile(files.rows) as rows:
        for batch in _batches(kept_parts(piece, split, counts)):
            ids = _encode(batch, tokenizer, dtype)
            tokens.write(np.concatenate(ids))
            rows.write(np.array([_row(part, len(row)) for part, row in zip(batch, ids, strict=True)], ROW))
    record = {
        "documents": counts.documents,
        "bytes": counts.n_bytes,
        "skipped": dict(counts.left_out.counts),
        "cases": counts.left_out.cases,
        "longest": [(size, redacted_text(id_), digest) for size, id_, digest in counts.longest],
        "survey": vars(counts.survey),
        "rows": rows.n_bytes // ROW.itemsize,
        "tokens_sha256": tokens.sha256,
        "rows_sha256": rows.sha256,
    }
    write_json(files.record, record)
    return json.loads(json.dumps(record))


def _encode(batch: list[Part], tokenizer: "Tokenizer", dtype: np.dtype) -> list[np.ndarray]:
    """The ids of each part, an end-of-text token before each document and between the sides of a pair.

    Of a conversation the sides are, in turn, what is given and what the assistant writes; see `Conversations`.
    """
    if any(is_conversation(part.document) for part in batch):
        return _encode_conversations([part.document for part in batch], tokenizer, dtype)
    start = np.array([tokenizer.end_of_text], dtype)
    texts = [_texts(part.document.data) for part in batch]
    encoded = iter(tokenizer.encode_batch([text.decode("utf-8") for of_part in texts for text in of_part]))
    return [
        _joined(part, [next(encoded) for _ in of_part], start, tokenizer)
        for part, of_part in zip(batch, texts, strict=True)
    ]


def _encode_conversations(
    documents: list[Document], tokenizer: "Tokenizer", dtype: np.dtype
) -> list[np.ndarray]:
    """The ids of conversations by the tokenizer's template."""
    from llm.tokenizer import ChatTemplate

    template = ChatTemplate(tokenizer)
    encoded = []
    for document in documents:
        try:
            stretches = [
                stretch for messages in conversations_of(document) for stretch in template.stretches(messages)
            ]
        except DataError as error:
            raise DataError(f"{document.id}: {error}") from error
        encoded.append(join_stretches(stretches, tokenizer.end_of_text).astype(dtype))
    return encoded


def join_stretches(stretches: Sequence[np.ndarray], end_of_text: int) -> np.ndarray:
    """Stretches of ids as one, an end of text before each; those that stand in them are doubled.

    Raises:
        DataError: a stretch begins with an end of text, which could not be told from the one before it.
    """
    if any(stretch[0] == end_of_text for stretch in stretches):
        raise DataError(
            "the chat template begins a turn with the token that ends texts; give another by task.template=."
        )
    doubled = (np.repeat(stretch, np.where(stretch == end_of_text, 2, 1)) for stretch in stretches)
    return np.concatenate([part for stretch in doubled for part in ([end_of_text], stretch)])


def _texts(data: bytes) -> list[bytes]:
    """What of a document is encoded, each by itself."""
    sides = data.replace(BETWEEN_WORDS, BETWEEN).split(BETWEEN)
    return [side for side in sides if not side.startswith(VERBATIM)]


def _joined(part: Part, sides: list[np.ndarray], start: np.ndarray, tokenizer: "Tokenizer") -> np.ndarray:
    """The ids of the sides with `start` between them, and before them where a document starts."""
    _, is_labelled, kept = part.document.data.partition(BETWEEN + VERBATIM)
    if is_labelled:
        # A word is a token at least, so that only what is verbatim stands behind two ends of text.
        sides = [side if len(side) else np.array([_unknown(tokenizer)]) for side in sides]
        sides += [np.zeros(0, np.int64), as_ids(kept, tokenizer.end_of_text, tokenizer.vocab_size)]
    pieces = [piece for side in sides for piece in (start, np.asarray(side).astype(start.dtype))]
    return np.concatenate(pieces if part.starts else pieces[1:])


def _unknown(tokenizer: "Tokenizer") -> int:
    for name in ("<unk>", "[UNK]"):
        if name in tokenizer.special_tokens:
            return tokenizer.special_tokens[name]
    raise DataError("The tokenizer makes nothing of a word, and has no token for the unknown: take another.")


def _row(part: Part, n_tokens: int) -> tuple[int, int, int, bool, bool]:
    document = part.document
    digest = int(document.digest[:16], 16) if part.starts else 0
    n_bytes = sum(map(len, _texts(document.data)))
    return digest, n_bytes, n_tokens, part.held_out, part.starts
