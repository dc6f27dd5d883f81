"""Rules of quality that others published, with their thresholds; whoever trains may turn each another way.

Shapes: w words, n runs of words.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from llm.bounds import Count, NotNegative, Positive, Share, Whole
from llm.data.steps.base import Result, TextStep, Words, check_order, words_of
from llm.data.steps.hashing import UInts, runs

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
BULLETS = ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "–", "-", "*", "●")
ELLIPSES = ("...", "…")
LETTER = re.compile(r"[^\W\d_]")
END_OF_LINE = (".", "?", "!", '"', "'", "”", "’", "»", "。", "？", "！")
TERMINAL = (".", "?", "!", '"', "'", "”", "’")
SENTENCE_END = re.compile(r"[.?!][\"'”’)]*(?=\s|$)")
CITATION = re.compile(r"\[(?:\d+|edit|citation needed)\]")
POLICY = re.compile(
    "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies", re.IGNORECASE
)


@dataclass(frozen=True)
class GopherQuality(TextStep):
    """The quality rules of Gopher (Rae et al., 2021, arXiv:2112.11446, A.1.1), made for English.

    A document has 50 to 100,000 words, of 3 to 10 characters in the mean; at most 0.1 of `#` and `...` to a word; at
    most 90% of lines that begin with a bullet and 30% that end with an ellipsis; 80% of words with a letter; and two
    of eight stop words.
    """

    min_words: Whole = 50
    max_words: Count = 100_000
    min_mean_length: NotNegative = 3.0
    max_mean_length: Positive = 10.0
    max_symbols: NotNegative = 0.1
    max_bullet_lines: Share = 0.9
    max_ellipsis_lines: Share = 0.3
    min_words_with_letters: Share = 0.8
    min_stop_words: Annotated[int, Ge(0), Le(8)] = 2  # of STOP_WORDS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self, "min_words", "max_words")
        check_order(self, "min_mean_length", "max_mean_length")

    def __call__(self, text: str) -> Result:
        """The text, where it keeps all the rules."""
        reason = self._flaw(text, words_of(text))
        return Result(None if reason else text, reason)

    def _flaw(self, text: str, found: Words) -> str:
        count, lines = len(found.lengths), found.lines
        if not self.min_words <= count <= self.max_words:
            return "too few words" if count < self.min_words else "too many words"
        if not self.min_mean_length <= found.lengths.mean() <= self.max_mean_length:
            return "mean length of words"
        if max(text.count("#"), text.count("...") + text.count("…")) > self.max_symbols * count:
            return "symbols"
        if sum(line.startswith(BULLETS) for line in lines) > self.max_bullet_lines * len(lines):
            return "lines that are bullets"
        if sum(line.endswith(ELLIPSES) for line in lines) > self.max_ellipsis_lines * len(lines):
            return "lines that end with an ellipsis"
        if _with_letters(found) < self.min_words_with_letters * count:
            return "words without letters"
        if len(STOP_WORDS.intersection(chain.from_iterable(found.words()))) < self.min_stop_words:
            return "no stop words"
        return ""


def _with_letters(found: Words) -> int:
    return sum(sum(map(bool, map(LETTER.search, some))) for some in found.words())


@dataclass(frozen=True)
class GopherRepetition(TextStep):
    """The repetition rules of Gopher (Rae et al., 2021, arXiv:2112.11446, table A1).

    At most 30% of lines and of paragraphs are repeats, with 20% of the characters; the most frequent run of 2, 3, 4
    words has at most 20, 18, 16% of the characters of words; and repeats of runs of 5 to 10 words at most 15 to 10%.
    `top` and `repeated` are these shares by the length of the run, from 2 and from 5 words on.
    """

    max_lines: Share = 0.3
    max_paragraphs: Share = 0.3
    max_line_characters: Share = 0.2
    max_paragraph_characters: Share = 0.2
    top: Sequence[Share] = (0.2, 0.18, 0.16)
    repeated: Sequence[Share] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)

    def __call__(self, text: str) -> Result:
        """The text, where it keeps all the rules."""
        reason = self._lines(text) or self._runs(text)
        return Result(None if reason else text, reason)

    def _lines(self, text: str) -> str:
        lines = words_of(text).lines
        paragraphs = [part for part in map(str.strip, re.split(r"\n{2,}", text)) if part]
        for name, parts, share, characters in (
            ("lines", lines, self.max_lines, self.max_line_characters),
            ("paragraphs", paragraphs, self.max_paragraphs, self.max_paragraph_characters),
        ):
            count, length = repeats(parts)
            if count > share * len(parts) or length > characters * sum(map(len, parts)):
                return f"repeated {name}"
        return ""

    def _runs(self, text: str) -> str:
        found = words_of(text)
        hashes_w = np.concatenate(
            [np.fromiter(map(hash_of, some), np.uint64, len(some)) for some in found.words()]
        )
        total = found.lengths.sum()
        for length, share in enumerate(self.top, 2):
            if len(hashes_w) >= length and _top(hashes_w, found.lengths, length) > share * total:
                return f"the most frequent {length} words"
        for length, share in enumerate(self.repeated, 5):
            if len(hashes_w) >= length and _covered(hashes_w, found.lengths, length) > share * total:
                return f"repeated runs of {length} words"
        return ""


def repeats(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts repeat an earlier one, and their characters."""
    again = [(count - 1, len(part)) for part, count in Counter(parts).items() if count > 1]
    return sum(count for count, _ in again), sum(count * length for count, length in again)


def hash_of(word: str) -> int:
    """A hash of a word that may differ from process to process: good for comparing words of one text."""
    return hash(word) & 0xFFFFFFFFFFFFFFFF


def _top(hashes_w: UInts, lengths_w: np.ndarray, length: int) -> int:
    """Characters of the words in all occurrences of the most frequent run, 0 where none occurs twice."""
    _, first_n, count_n = np.unique(runs(hashes_w, length), return_index=True, return_counts=True)
    most = count_n.max()
    if most < 2:
        return 0
    chosen = first_n[count_n == most]
    ends = np.concatenate([[0], np.cumsum(lengths_w)])
    return int(most * (ends[chosen + length] - ends[chosen]).max())


def _covered(hashes_w: UInts, lengths_w: np.ndarray, length: int) -> int:
    """Characters of the words that stand in a run which occurred before."""
    hashes_n = runs(hashes_w, length)
    again = np.ones(len(hashes_n), bool)
    again[np.unique(hashes_n, return_index=True)[1]] = False
    opened = np.zeros(len(lengths_w) + 1, np.int64)
    starts = np.flatnonzero(again)
    np.add.at(opened, starts, 1)
    np.add.at(opened, starts + length, -1)
    return int(lengths_w[np.cumsum(opened[:-1]) > 0].sum())


@dataclass(frozen=True)
class C4(TextStep):
    """The rules of C4 (Raffel et al., 2020, JMLR 21, 2.2, with its code's numbers), without its list of bad words.

    Lines go that don't end with punctuation (`terminal_punctuation`), that have fewer than 5 words or one of 1,000
    characters, or that speak of JavaScript, cookies or policies; marks of citations go. A document goes that has a
    curly bracket or "lorem ipsum", or fewer than 3 sentences left.
    """

    terminal_punctuation: bool = True
    min_words_in_line: Whole = 5
    max_word_length: Count = 1000
    min_sentences: Whole = 3

    def __call__(self, text: str) -> Result:
        """The lines that keep the rules."""
        if "{" in text:
            return Result(None, "curly bracket")
        if "lorem ipsum" in text.lower():
            return Result(None, "lorem ipsum")
        lines = [line for line in map(self._clean, text.split("\n")) if line is not None]
        kept = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        if len(SENTENCE_END.findall(kept)) < self.min_sentences:
            return Result(None, "too few sentences")
        return Result(kept)

    def _clean(self, line: str) -> str | None:
        line = CITATION.sub("", line).strip() if "[" in line else line.strip()
        if not line:
            return line
        words = line.split()
        if len(words) < self.min_words_in_line or max(map(len, words)) > self.max_word_length:
            return None
        if self.terminal_punctuation and (not line.endswith(TERMINAL) or line.endswith(ELLIPSES)):
            return None
        return None if "javascript" in line.lower() or POLICY.search(line) else line


@dataclass(frozen=True)
class FineWeb(TextStep):
    """The rules that FineWeb adds (Penedo et al., 2024, arXiv:2406.17557, 3.6).

    A document goes where at most 12% of its lines end with punctuation, where repeated lines have 10% of its
    characters or more, or where 67% of its lines or more are shorter than 30 characters.
    """

    min_lines_with_punctuation: Share = 0.12
    max_repeated_characters: Share = 0.1
    max_short_lines: Share = 0.67
    short_line: Whole = 30

    def __call__(self, text: str) -> Result:
        """The text, where it keeps all the rules."""
        reason = self._flaw(words_of(text).lines)
        return Result(None if reason else text, reason)

    def _flaw(self, lines: Sequence[str]) -> str:
        count = len(lines)
        if sum(line.endswith(END_OF_LINE) for line in lines) <= self.min_lines_with_punctuation * count:
            return "lines without punctuation"
        if repeats(lines)[1] >= self.max_repeated_characters * sum(map(len, lines)):
            return "repeated lines"
        if sum(len(line) < self.short_line for line in lines) >= self.max_short_lines * count:
            return "short lines"
        return ""


@dataclass(frozen=True)
class Length(TextStep):
    """Documents of some length in words and characters; None sets no limit."""

    min_words: Whole | None = None
    max_words: Count | None = None
    min_characters: Whole | None = None
    max_characters: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self, "min_words", "max_words")
        check_order(self, "min_characters", "max_characters")

    def __call__(self, text: str) -> Result:
        """The text, where it has that length."""
        for size, least, most in (
            (len(text), self.min_characters, self.max_characters),
            (len(words_of(text).lengths), self.min_words, self.max_words),
        ):
            if least is not None and size < least:
                return Result(None, "too short")
            if most is not None and size > most:
                return Result(None, "too long")
        return Result(text)
