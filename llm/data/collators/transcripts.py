"""A stream whose documents are turns: in turn what is given and what the assistant writes, an end of text before each.

Shapes: n documents, m marks (the ends of text between turns), t time, p ends of text that are no part of a document.
"""

import numpy as np

from llm.data.corpus import TokenStream
from llm.errors import DataError


class Transcripts:
    """Each document as its ids, and which turn they belong to, counted from 0: those of odd turns are written.

    Of two ends of text side by side the second belongs to the document.

    Args:
        stream: the tokens.
        end_of_text: the tokenizer's.

    Raises:
        DataError: the documents are not turns.
    """

    def __init__(self, stream: TokenStream, end_of_text: int) -> None:
        self.stream = stream
        self._starts = stream.documents.astype(np.int64)
        self._ends = stream.ends.astype(np.int64)
        self._gone_p, number_p, is_mark_p = self._ends_of_text(end_of_text)
        n_gone = np.bincount(number_p, minlength=len(self._starts))
        self.lengths = self._ends - self._starts - 1 - n_gone
        self.number_m = number_p[is_mark_p]
        marks_m = self._gone_p[is_mark_p]
        gone_before_m = np.searchsorted(self._gone_p, marks_m) - np.searchsorted(
            self._gone_p, self._starts[self.number_m]
        )
        # How many ids of its document stand before each mark, and which of its document's marks it is.
        self.place_m = marks_m - self._starts[self.number_m] - 1 - gone_before_m
        self.turn_m = np.arange(len(marks_m)) - np.searchsorted(self.number_m, self.number_m)
        if (np.bincount(self.number_m, minlength=len(self._starts)) % 2 == 0).any():
            raise DataError("The documents of this corpus are no conversations: task=chat prepares such.")

    def __len__(self) -> int:
        return len(self._starts)

    def _ends_of_text(self, end_of_text: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ends of text that are no part of a document: where, in which, and whether a turn begins behind (p,)."""
        at = np.setdiff1d(self.stream.positions(end_of_text), self._starts, assume_unique=True)
        begins_run = np.diff(at, prepend=-2) != 1
        ends_run = np.diff(at, append=len(self.stream) + 1) != 1
        numbers = np.arange(len(at))
        within_run = numbers - np.maximum.accumulate(np.where(begins_run, numbers, 0))
        gone = within_run % 2 == 0
        return at[gone], np.searchsorted(self._starts, at[gone], side="right") - 1, ends_run[gone]

    def n_written(self, kept: np.ndarray) -> np.ndarray:
        """How many of the first `kept` (n,) ids of each document (n,) are written."""
        place = np.minimum(self.place_m, kept[self.number_m])
        sums = np.bincount(self.number_m, np.where(self.turn_m % 2, place, -place), len(kept))
        return (sums + np.minimum(self.lengths, kept)).astype(np.int64)

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids (t,) of a document and their turns (t,)."""
        start, end = self._starts[number], self._ends[number]
        low, high = np.searchsorted(self._gone_p, (start, end))
        gone = self._gone_p[low:high] - start
        ids = self.stream.tokens[start:end].astype(np.int64)
        keep = np.ones(len(ids), bool)
        keep[gone], keep[0] = False, False
        is_mark = np.zeros(len(ids), bool)
        # What went before another end of text stood for that one.
        is_mark[gone] = ids[np.minimum(gone + 1, len(ids) - 1)] != ids[0]
        return ids[keep], np.cumsum(is_mark)[keep]
