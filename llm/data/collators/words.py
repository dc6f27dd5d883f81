"""Labelled words: documents of words that are encoded each by itself, read in windows and scored a word at a time.

Shapes: w words of a document, n windows, b batch, t time, k scored positions.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from llm.data.collators.base import Setting, TokenCounts
from llm.data.collators.labels import LabelCollator
from llm.data.collators.pairs import padded_length
from llm.data.collators.spans import filled
from llm.data.corpus import TokenStream
from llm.data.documents.verbatim import from_ids
from llm.data.sampling.epochs import Epochs
from llm.errors import ConfigError, DataError
from llm.model import ModelConfig
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer, ends_of

# Tokens around the words: the marks of a text's beginning and end, and the one behind what stands before it.
MARKS = 2


class Span(NamedTuple):
    """A window's words, [first, end) of a document, and those of them that are scored in no other, [begin, stop)."""

    first: int
    end: int
    begin: int
    stop: int


class Window(NamedTuple):
    """What is read at once of a document.

    Args:
        document: its number; -1 for a window of nothing.
        lead: the ids of what stands before the words, such as a question; empty where nothing does.
        words: the ids of each word.
        span: which words of the document they are.
        about: what the document keeps verbatim.
    """

    document: int
    lead: np.ndarray
    words: list[np.ndarray]
    span: Span
    about: bytes


NOTHING = Window(-1, np.zeros(0, np.int64), [], Span(0, 0, 0, 0), b"")


def spans(lengths_w: np.ndarray, room: int, stride: int | None = None) -> list[Span]:
    """Windows of at most `room` tokens over words of these lengths, each `stride` tokens behind the one before.

    Without `stride` it is half of `room`.
    A word in several is scored where it stands farther from an edge. One longer than `room` counts as that long.
    """
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths_w, room))])
    edges = list(_edges(offsets, room, stride or max(1, room // 2)))
    between = [(later[0] + one[1] + 1) // 2 for one, later in pairwise(edges)]
    begins, stops = [0, *between], [*between, len(lengths_w)]
    return [Span(*edge, *scored) for edge, *scored in zip(edges, begins, stops, strict=True)]


def _edges(offsets: np.ndarray, room: int, stride: int) -> Iterator[tuple[int, int]]:
    first, n_words = 0, len(offsets) - 1
    while True:
        end = int(np.searchsorted(offsets, offsets[first] + room, side="right")) - 1
        yield first, end
        if end == n_words:
            return
        # No word is left out where the stride is longer than a window, and each window begins behind the one before.
        first = min(max(int(np.searchsorted(offsets, offsets[first] + stride)), first + 1), end)


class LabelledWords(Epochs[Window]):
    """A stream of documents of words, `BETWEEN_WORDS` apart, that keep something verbatim of them.

    Each window of each document comes once an epoch.

    Args:
        stream: the documents.
        length: the tokens of a window, its marks counted.
        seed: of the order.
        end_of_text: the tokenizer's.
        stride: tokens from the beginning of a window's words to that of the next one's; None for half of what fits.
        has_lead: whether something stands before the words of each document, such as a question; it is cut to half a
            window.

    Raises:
        DataError: the documents are others.
    """

    def __init__(
        self,
        stream: TokenStream,
        length: int,
        seed: int,
        end_of_text: int,
        *,
        stride: int | None = None,
        has_lead: bool = False,
    ) -> None:
        self.stream, self.length, self.end_of_text = stream, length, end_of_text
        self.stride, self.has_lead = stride, has_lead
        starts = stream.positions(end_of_text)
        # Part c of the stream are the tokens behind the end of text at starts[c].
        self._starts = np.append(starts, len(stream))
        self._first_part = np.searchsorted(starts, stream.documents.astype(np.int64))
        self._end_part = np.append(self._first_part[1:], len(starts))
        self._check()
        self._windows = list(self._cut())
        super().__init__(len(self._windows), seed)

    def _check(self) -> None:
        """A document is what leads, where that is, its words, nothing, and what is verbatim."""
        n_parts = self._end_part - self._first_part
        lengths = np.diff(self._starts) - 1
        is_words = (n_parts >= 3 + self.has_lead).all() and (lengths[self._end_part - 2] == 0).all()
        if not is_words:
            raise DataError(
                "The documents of this corpus are no words with labels: data=conll, and lists in data=jsonl, make such for "
                "task=tagging; data=squad makes questions for task=qa."
            )

    def _cut(self) -> Iterator[tuple[int, Span]]:
        lengths = np.diff(self._starts) - 1
        for number, (first, end) in enumerate(zip(self._first_part, self._end_part - 2, strict=True)):
            lead = min(lengths[first], self.length // 2) + 1 if self.has_lead else 0
            room = self.length - MARKS - lead
            for span in spans(lengths[first + self.has_lead : end], room, self.stride):
                yield number, span

    @cached_property
    def n_windowed(self) -> int:
        """Documents that are read in more than one window."""
        return int((np.bincount([number for number, _ in self._windows]) > 1).sum())

    @property
    def n_documents(self) -> int:
        """Documents, each in one window or several."""
        return self.stream.n_documents

    @property
    def n_words(self) -> int:
        """Words in all."""
        return sum(span.stop - span.begin for _, span in self._windows)

    @property
    def note(self) -> str:
        """How many documents are read in windows; empty where none is."""
        if not self.n_windowed:
            return ""
        return (
            f"{self.n_windowed:,} of {self.n_documents:,} texts are longer than model.context_length={self.length} and are "
            "read in windows."
        )

    @property
    def tokens(self) -> float:
        """The tokens of a window, on average."""
        return sum(self._n_tokens(number, span) for number, span in self._windows) / max(1, self.size)

    def _n_tokens(self, number: int, span: Span) -> int:
        first = self._first_part[number] + self.has_lead
        words = self._starts[first + span.end] - self._starts[first + span.first] - (span.end - span.first)
        return min(int(words) + MARKS, self.length)

    def in_order(self, indices: np.ndarray) -> list[Window]:
        """The windows of these indices (n,); -1 is a window of nothing."""
        return [NOTHING if number < 0 else self.window(number) for number in indices.tolist()]

    def n_targets(self, indices: np.ndarray) -> np.ndarray | None:
        """The words (n,) that are scored in training samples."""
        chosen = (self._windows[number][1] for number in self.order.shuffled(indices).tolist())
        return np.array([span.stop - span.begin for span in chosen])

    def window(self, number: int) -> Window:
        """A window by its number in the stream."""
        document, span = self._windows[number]
        first = self._first_part[document]
        lead = self._part(first)[: self.length // 2] if self.has_lead else np.zeros(0, np.int64)
        first += self.has_lead
        words = [self._part(part) for part in range(first + span.first, first + span.end)]
        return Window(document, lead, words, span, self.about(document))

    def about(self, document: int) -> bytes:
        """What a document keeps verbatim."""
        return from_ids(self._part(self._end_part[document] - 1), self.end_of_text)

    def shown(self, document: int, tokenizer: Tokenizer) -> str:
        """A document as a person would ask of it."""
        words = range(self._first_part[document] + self.has_lead, self._end_part[document] - 2)
        return tokenizer.decode(np.concatenate([self._part(part) for part in words]).tolist())

    def _part(self, part: int) -> np.ndarray:
        return self.stream.tokens[self._starts[part] + 1 : self._starts[part + 1]].astype(np.int64)


class WordCollator(LabelCollator):
    """Base of what makes batches of labelled words: a text longer than the context is read in windows.

    Args:
        setting: the run's tokenizer, and the model with its labels.
        stride: tokens from the beginning of a window's words to that of the next one's; None for half of what fits.

    Raises:
        ConfigError: `stride` is no number of tokens.
    """

    def __init__(self, setting: Setting, *, stride: int | None = None) -> None:
        super().__init__(setting)
        if stride is not None and stride < 1:
            raise ConfigError(f"task.collator.stride={stride} must be at least 1, or null for half a window.")
        self.stride = stride

    def longest_tokens(self, view: LabelledWords) -> TokenCounts:
        """A full window's, a word a token."""
        return TokenCounts.full(view.length)


def laid_out(
    windows: Sequence[Window], tokenizer: Tokenizer, model_config: ModelConfig, *, whole: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of a `Batch` of windows but for their targets.

    A word is scored at its first token by an encoder and at its last by a decoder, which has seen all of it there. With
    `whole` the first scored position is that of the text as a whole: an encoder's first, a decoder's last. What stands
    before the words is of segment 0, and they of segment 1, where the model tells segments apart.
    """
    tokens, positions = zip(
        *(_row(window, tokenizer, model_config, whole) for window in windows), strict=True
    )
    length = padded_length(tokens, model_config.context_length)
    tokens_bt = filled(tokens, length, PADDING)
    is_padding_bt = tokens_bt == PADDING
    most = padded_length(positions, model_config.context_length)
    arrays = {
        "tokens_bt": np.where(is_padding_bt, tokenizer.end_of_text, tokens_bt),
        "documents_bt": np.where(is_padding_bt, PADDING, 0),
        "positions_bk": filled(positions, most, 0),
    }
    if model_config.n_segments > 1:
        # The marks of the beginning and of the end of what stands before count to it.
        leads_b = np.array([len(window.lead) + MARKS if len(window.lead) else length for window in windows])
        arrays["segments_bt"] = (np.arange(length) >= leads_b[:, None]).astype(np.int64)
    return arrays


def _row(
    window: Window, tokenizer: Tokenizer, model_config: ModelConfig, whole: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens (t,) and the scored positions (k,)."""
    begin, end = ends_of(tokenizer)
    lead = [*window.lead.tolist(), end] if len(window.lead) else []
    room = model_config.context_length - MARKS - len(lead)
    words = [word[:room] for word in window.words]
    tokens = np.array([begin, *lead, *(id_ for word in words for id_ in word.tolist()), end])
    edges = 1 + len(lead) + np.cumsum([0, *map(len, words)])
    is_encoder = model_config.architecture == "encoder"
    positions = edges[:-1] if is_encoder else edges[1:] - 1
    if whole:
        positions = np.concatenate([[0 if is_encoder else len(tokens) - 1], positions])
    return tokens, positions
