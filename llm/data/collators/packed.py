"""Conversations, a pair of texts being the shortest: of each, parts alone are scored; as many as fit stand in a row.

Shapes: n conversations, r rows, b batch, t time.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from functools import cached_property
from typing import NamedTuple

import numpy as np

from llm.data.collators.base import Batch, Given, Setting, TokenCounts
from llm.data.collators.pairs import padded_length
from llm.data.collators.spans import filled
from llm.data.corpus import TokenStream
from llm.data.sampling.epochs import Epochs
from llm.data.sampling.windows import IGNORED
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer


class Conversation(NamedTuple):
    """The ids of a conversation, or of a source and its target, and which of them the model is to write."""

    ids_t: np.ndarray
    is_written_t: np.ndarray


class Exchange(NamedTuple):
    """The ids that a model is given, and those that it is to write for them, as long as they are."""

    given_t: np.ndarray
    written_t: np.ndarray


class Packed(Epochs[list[Conversation]]):
    """Conversations in rows of at most `length` inputs, which are put together once; each comes once an epoch.

    Args:
        kept_lengths: the ids of each conversation, as far as they are read (n,).
        n_written: how many of them are written (n,).
        wanted: the indices of the conversations that are taken.
        length: the inputs that a row has room for.
        seed: of the order of the rows.
    """

    def __init__(
        self, kept_lengths: np.ndarray, n_written: np.ndarray, wanted: np.ndarray, length: int, seed: int
    ) -> None:
        self.length = length
        self.kept_lengths, self.n_written = kept_lengths, n_written
        self.rows = pack(kept_lengths - 1, wanted, length)
        super().__init__(len(self.rows), seed)

    @abstractmethod
    def conversation(self, index: int) -> Conversation:
        """A conversation by its index in the stream, as far as it is read."""

    @abstractmethod
    def exchange(self, index: int) -> Exchange:
        """What a conversation first gives and wants for it."""

    @property
    @abstractmethod
    def note(self) -> str:
        """What became of conversations that don't fit; empty where all do."""

    @property
    def n_conversations(self) -> int:
        """The conversations of the stream, whether they are taken or not."""
        return len(self.kept_lengths)

    @property
    def tokens(self) -> float:
        """The inputs of a row, on average."""
        used = sum(int((self.kept_lengths[row] - 1).sum()) for row in self.rows)
        return used / max(1, len(self.rows))

    @property
    def targets(self) -> float:
        """The scored tokens of a row, on average."""
        return float(self._targets_r.mean()) if len(self.rows) else 0.0

    @cached_property
    def _targets_r(self) -> np.ndarray:
        return np.array([self.n_written[row].sum() for row in self.rows], np.int64)

    def in_order(self, indices: np.ndarray) -> list[list[Conversation]]:
        """The rows of these indices (n,); -1 is a row of nothing."""
        return [
            [] if index < 0 else [self.conversation(one) for one in self.rows[index].tolist()]
            for index in indices.tolist()
        ]

    def n_targets(self, indices: np.ndarray) -> np.ndarray:
        """The scored tokens (n,) of training samples."""
        return self._targets_r[self.order.shuffled(indices)]

    def target_bytes(self, tokenizer: Tokenizer) -> float:
        """The UTF-8 bytes of a row's scored tokens, on average; what one has is that of the first thousand conversations."""
        some = [self.conversation(n) for n in range(min(1000, self.n_conversations))]
        ids = np.concatenate([one.ids_t[one.is_written_t] for one in some])
        return self.targets * len(tokenizer.decode_bytes(ids.tolist())) / max(1, len(ids))


def pack(lengths: np.ndarray, indices: np.ndarray, room: int) -> list[np.ndarray]:
    """Put the things of these `indices` (n,), of `lengths` by index, into rows of `room`, each where it fits best."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # how much room a row has left, and which it is
    for index in indices[np.argsort(-lengths[indices], kind="stable")].tolist():
        size = int(lengths[index])
        found = bisect_left(free, (size, -1))
        left, row = free.pop(found) if found < len(free) else (room, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        insort(free, (left - size, row))
    return [np.array(row) for row in rows]


class PackedCollator(ABC):
    """Each token that is to be written is predicted from what stands before it in its conversation, and nothing else is scored.

    Args:
        setting: the run's tokenizer, and the model, which says how much fits into a row.
    """

    given: Given

    extra_fields = ("documents_bt",)

    def __init__(self, setting: Setting) -> None:
        self.tokenizer, self.longest = setting.tokenizer, setting.model_config.context_length

    @abstractmethod
    def samples(self, stream: TokenStream, length: int, seed: int) -> Packed:
        """The rows of a stream, of at most `length` inputs; `seed` decides their order."""

    def mean_tokens(self, view: Packed) -> TokenCounts:
        """The average row's."""
        return TokenCounts(view.tokens, view.tokens, view.targets)

    def longest_tokens(self, view: Packed) -> TokenCounts:
        """A full row's; each position gets scores, and those of what is to be written count."""
        return TokenCounts.full(view.length)

    def __call__(self, rows: list[list[Conversation]], indices_b: np.ndarray) -> Batch:
        """The batch of rows, padded to the longest."""
        nothing = np.zeros(0, np.int64)
        inputs = [np.concatenate([nothing, *(one.ids_t[:-1] for one in row)]) for row in rows]
        targets = [np.concatenate([nothing, *map(targets_of, row)]) for row in rows]
        documents = [np.repeat(np.arange(len(row)), [len(one.ids_t) - 1 for one in row]) for row in rows]
        length = padded_length(inputs, self.longest)
        return Batch.of(
            tokens_bt=filled(inputs, length, self.tokenizer.end_of_text),
            targets_bk=filled(targets, length, IGNORED),
            indices_b=indices_b,
            documents_bt=filled(documents, length, PADDING),
        )


def targets_of(conversation: Conversation) -> np.ndarray:
    """What each input of a conversation is to be followed by, where the model is to write it."""
    return np.where(conversation.is_written_t, conversation.ids_t, IGNORED)[1:]
