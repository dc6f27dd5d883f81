"""Conversations: several packed in a row, of which the assistant's words alone are scored.

Shapes: n conversations, t time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llm.data.collators.base import Given, Setting
from llm.data.collators.packed import Conversation, Exchange, Packed, PackedCollator
from llm.data.collators.transcripts import Transcripts
from llm.data.corpus import TokenStream
from llm.data.documents import Document, LeftOut, Piece, ReadingPlan, Source, fingerprint
from llm.data.documents.messages import as_conversation, is_preference
from llm.data.files.inputs import InputFiles
from llm.errors import ConfigError, DataError

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

    def plan(self, files: InputFiles) -> ReadingPlan:
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

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the conversations in order; a DataError where they are preferences and should not be, or the reverse."""
        for document in self.piece.documents(left_out):
            made = as_conversation(document) if document.data else document
            if made.data and is_preference(made) != self.preferences:
                raise DataError(
                    f"{document.id} has a rejected answer, which is for task=dpo; task=chat takes conversations."
                    if is_preference(made)
                    else f"{document.id} has no rejected answer, and task=dpo needs one (data.rejected=); task=chat "
                    "trains on conversations."
                )
            yield made


class Conversations(Packed):
    """A stream of conversations, in rows.

    One that is longer than a row is cut to its beginning, or left out. Raises what `Transcripts` raises.
    """

    def __init__(
        self, stream: TokenStream, length: int, seed: int, *, end_of_text: int, too_long: TooLong
    ) -> None:
        self.transcripts = Transcripts(stream, end_of_text)
        self.is_long = self.transcripts.lengths > length + 1
        kept_lengths = np.minimum(self.transcripts.lengths, length + 1)
        n_written = self.transcripts.n_written(kept_lengths)
        wanted = (n_written > 0) & (~self.is_long if too_long == "drop" else True)
        self.n_left_out = int((~wanted).sum())
        self.cuts = too_long == "cut"
        super().__init__(kept_lengths, n_written, np.flatnonzero(wanted), length, seed)

    @property
    def note(self) -> str:
        """What became of conversations that don't fit; empty where all do."""
        long, left_out = int(self.is_long.sum()), self.n_left_out
        told = [
            f"{long:,} of {self.n_conversations:,} conversations are longer than model.context_length={self.length} "
            f"and are {'cut to it' if self.cuts else 'left out'}"
            if long
            else "",
            f"{left_out:,} have no answer within it and are left out" if left_out and self.cuts else "",
        ]
        return "; ".join(filter(None, told)) + "." if any(told) else ""

    def conversation(self, index: int) -> Conversation:
        """A conversation by its index in the stream, as far as it fits."""
        ids, turns = self.transcripts.read(index)
        longest = self.length + 1
        return Conversation(ids[:longest], (turns % 2 == 1)[:longest])

    def exchange(self, index: int) -> Exchange:
        """What is given before the first answer, and that answer."""
        ids_t, turn_t = self.transcripts.read(index)
        # The last id that is given before the first answer, and the last of that.
        given, written = (np.flatnonzero(np.diff(turn_t % 2 == 1, append=False)) + 1)[:2]
        return Exchange(ids_t[:given], ids_t[given:written])


def check_too_long(too_long: TooLong) -> TooLong:
    """Raise ConfigError unless it is one of the two."""
    if too_long not in ("cut", "drop"):
        raise ConfigError(f"task.collator.too_long={too_long}: it is cut or drop.")
    return too_long


class ConversationCollator(PackedCollator):
    """Each token of the assistant is predicted from what stands before it in its conversation, and nothing else is scored.

    Args:
        setting: the run's tokenizer, and the model, which says how much fits into a row.
        too_long: what becomes of a conversation longer than the context: `cut` to its beginning, or `drop`.
    """

    given: Given = "chat"

    def __init__(self, setting: Setting, *, too_long: TooLong = "cut") -> None:
        super().__init__(setting)
        self.too_long = check_too_long(too_long)

    def samples(self, stream: TokenStream, length: int, seed: int) -> Conversations:
        """A stream of conversations."""
        end = self.tokenizer.end_of_text
        return Conversations(stream, length, seed, end_of_text=end, too_long=self.too_long)
