"""Conversations: several packed in a row, of which the assistant's words alone are scored.

Shapes: n conversations, r rows, b batch, t time.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from llm.data.collators.base import Batch, Setting, Work
from llm.data.collators.pairs import padded_length
from llm.data.collators.spans import filled
from llm.data.collators.transcripts import Transcripts
from llm.data.documents import Document, Losses, Piece, Plan, Source, fingerprint
from llm.data.documents.messages import as_conversation, is_preference
from llm.data.files.inputs import InputFiles
from llm.data.sampling.order import EpochOrder
from llm.data.sampling.windows import IGNORED
from llm.data.shards import TokenStream
from llm.errors import ConfigError, DataError
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer

TooLong = Literal["cut", "drop"]


@dataclass(frozen=True)
class Conversing:
    """A source whose documents are conversations; pairs of texts become questions and answers.

    With `preferences`, each is one conversation with two answers.
    """

    source: Source
    preferences: bool = False

    @property
    def corpus_name(self) -> str:
        """The source's."""
        return self.source.corpus_name

    @property
    def validation_share(self) -> float | None:
        """The source's."""
        return self.source.validation_share

    def plan(self, files: InputFiles) -> Plan:
        """The source's plan, its pieces made conversations."""
        plan = self.source.plan(files)
        pieces = [ConversingPiece(piece, self.preferences) for piece in plan.pieces]
        return replace(
            plan,
            pieces=pieces,
            fingerprint=fingerprint(
                {"preferences" if self.preferences else "conversations": plan.fingerprint}
            ),
        )


@dataclass(frozen=True)
class ConversingPiece:
    """A piece of such a source."""

    piece: Piece
    preferences: bool

    def documents(self, losses: Losses) -> Iterator[Document]:
        """Read the conversations in order; a DataError where they are preferences and should not be, or the reverse."""
        for document in self.piece.documents(losses):
            made = as_conversation(document) if document.data else document
            if made.data and is_preference(made) != self.preferences:
                task = (
                    "task=chat takes conversations" if is_preference(made) else "task=dpo takes preferences"
                )
                raise DataError(
                    f"{document.id} is {'a preference' if is_preference(made) else 'none'}: {task}."
                )
            yield made


class Conversation(NamedTuple):
    """The ids of a conversation, and which of them the assistant wrote."""

    ids_t: np.ndarray
    is_written_t: np.ndarray


class Conversations:
    """A stream of conversations: a row is as many as fit into `length` inputs, put together once; each comes once an epoch.

    One that is longer is cut to its beginning, or left out. Raises what `Transcripts` raises.
    """

    def __init__(
        self, stream: TokenStream, length: int, seed: int, *, end_of_text: int, too_long: TooLong
    ) -> None:
        self.length = length
        self.transcripts = Transcripts(stream, end_of_text)
        self.lengths = self.transcripts.lengths
        self.is_long = self.lengths > length + 1
        kept_lengths = np.minimum(self.lengths, length + 1)
        self.n_written = self.transcripts.n_written(kept_lengths)
        wanted = (self.n_written > 0) & (~self.is_long if too_long == "drop" else True)
        self.n_left_out = int((~wanted).sum())
        self.cuts = too_long == "cut"
        self.rows = pack(kept_lengths - 1, np.flatnonzero(wanted), length)
        self.order = EpochOrder(len(self.rows), seed)

    @property
    def size(self) -> int:
        """Rows in one pass over the conversations."""
        return len(self.rows)

    @property
    def n_held_out(self) -> int:
        """Every row once."""
        return len(self.rows)

    @property
    def tokens(self) -> float:
        """The inputs of a row, on average."""
        used = sum(int(np.minimum(self.lengths[row] - 1, self.length).sum()) for row in self.rows)
        return used / max(1, len(self.rows))

    @property
    def targets(self) -> float:
        """The scored tokens of a row, on average."""
        return float(self._targets_r.mean()) if len(self.rows) else 0.0

    @cached_property
    def _targets_r(self) -> np.ndarray:
        return np.array([self.n_written[row].sum() for row in self.rows], np.int64)

    @property
    def note(self) -> str:
        """What became of conversations that don't fit; empty where all do."""
        long, left_out, size = int(self.is_long.sum()), self.n_left_out, len(self.lengths)
        told = [
            f"{long:,} of {size:,} conversations are longer than model.context_length={self.length} "
            f"and are {'cut to it' if self.cuts else 'left out'}"
            if long
            else "",
            f"{left_out:,} have no answer within it and are left out" if left_out and self.cuts else "",
        ]
        return "; ".join(filter(None, told)) + "." if any(told) else ""

    def samples(self, samples: np.ndarray) -> list[list[Conversation]]:
        """The rows of training samples (n,)."""
        return self.held_out(self.order.numbers(samples))

    def held_out(self, numbers: np.ndarray) -> list[list[Conversation]]:
        """The rows of these numbers (n,); -1 is a row of nothing."""
        return [
            [] if number < 0 else [self.conversation(one) for one in self.rows[number].tolist()]
            for number in numbers.tolist()
        ]

    def n_targets(self, samples: np.ndarray) -> np.ndarray:
        """The scored tokens (n,) of training samples."""
        return self._targets_r[self.order.numbers(samples)]

    def conversation(self, number: int) -> Conversation:
        """A conversation by its number in the stream, as far as it fits."""
        ids, turns = self.transcripts.read(number)
        longest = self.length + 1
        return Conversation(ids[:longest], (turns % 2 == 1)[:longest])


def pack(lengths: np.ndarray, numbers: np.ndarray, room: int) -> list[np.ndarray]:
    """Put the things of these `numbers` (n,), of `lengths` by number, into rows of `room`, each where it fits best."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # how much room a row has left, and which it is
    for number in numbers[np.argsort(-lengths[numbers], kind="stable")].tolist():
        size = int(lengths[number])
        found = bisect_left(free, (size, -1))
        left, row = free.pop(found) if found < len(free) else (room, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(number)
        insort(free, (left - size, row))
    return [np.array(row) for row in rows]


def check_too_long(too_long: TooLong) -> TooLong:
    """Raise ConfigError unless it is one of the two."""
    if too_long not in ("cut", "drop"):
        raise ConfigError(f"task.collator.too_long={too_long}: it is cut or drop.")
    return too_long


class ConversationCollator:
    """Each token of the assistant is told from what stands before it in its conversation, and nothing else is scored.

    Args:
        setting: the run's tokenizer, and the model, which says how much fits into a row.
        too_long: what becomes of a conversation longer than the context: `cut` to its beginning, or `drop`.
    """

    marks = ("documents_bt",)

    def __init__(self, setting: Setting, *, too_long: TooLong = "cut") -> None:
        self.too_long = check_too_long(too_long)
        self.tokenizer, self.longest = setting.tokenizer, setting.shape.context_length

    def view(self, stream: TokenStream, length: int, seed: int) -> Conversations:
        """A stream of conversations."""
        end = self.tokenizer.end_of_text
        return Conversations(stream, length, seed, end_of_text=end, too_long=self.too_long)

    def work(self, samples: Conversations) -> Work:
        """The average row's."""
        return Work(samples.tokens, samples.tokens, samples.targets)

    def most(self, samples: Conversations) -> Work:
        """A full row's; each position gets scores, and those of the assistant's words count."""
        return Work(samples.length, samples.length, samples.length)

    def __call__(self, rows: list[list[Conversation]], ids: np.ndarray) -> Batch:
        """The batch of rows, padded to the longest."""
        nothing = np.zeros(0, np.int64)
        inputs = [np.concatenate([nothing, *(one.ids_t[:-1] for one in row)]) for row in rows]
        targets = [np.concatenate([nothing, *map(targets_of, row)]) for row in rows]
        documents = [np.repeat(np.arange(len(row)), [len(one.ids_t) - 1 for one in row]) for row in rows]
        length = padded_length(inputs, self.longest)
        return Batch.of(
            tokens_bt=filled(inputs, length, self.tokenizer.end_of_text),
            targets_bk=filled(targets, length, IGNORED),
            ids=ids,
            documents_bt=filled(documents, length, PADDING),
        )


def targets_of(conversation: Conversation) -> np.ndarray:
    """What each input of a conversation is to be followed by, where the assistant wrote it."""
    return np.where(conversation.is_written_t, conversation.ids_t, IGNORED)[1:]


def bytes_per_target(tokenizer: Tokenizer, conversations: Conversations) -> float:
    """The UTF-8 bytes of a scored token, on average over the first thousand conversations."""
    some = [conversations.conversation(n) for n in range(min(1000, len(conversations.lengths)))]
    ids = np.concatenate([one.ids_t[one.is_written_t] for one in some])
    return len(tokenizer.decode_bytes(ids.tolist())) / max(1, len(ids))
