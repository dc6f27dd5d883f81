"""The answer to a question on a passage: a stretch of it, or none.

Shapes: w units of a passage, e edges.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llm.data.collators.words import Window
from llm.data.documents.answers import stretch, units
from llm.errors import ConfigError
from llm.generation.tagging import encoded_words, windows_of, word_scores
from llm.model import Transformer
from llm.tokenizer import Tokenizer

LONGEST_ANSWER = 30  # units


class Found(NamedTuple):
    """The units [first, last] of a passage, and by how much their score exceeds that of there being no answer."""

    first: int
    last: int
    margin: float


def best_stretch(windows: Sequence[Window], scores: Sequence[Tensor], longest: int = LONGEST_ANSWER) -> Found:
    """The stretch of at most `longest` units whose edges' scores add up to the most, over all windows of a passage.

    `scores` (1 + w, e) are of each window, those of the text as a whole first; that there is no answer scores as little as
    in the window that believes it least (arXiv 1810.04805).
    """
    found = Found(-1, -1, -float("inf"))
    none = min(float(scores_we[0].sum()) for scores_we in scores)
    for window, scores_we in zip(windows, scores, strict=True):
        starts_w, ends_w = scores_we[1:].unbind(1)
        if not len(starts_w):
            continue
        sums_ww = starts_w[:, None] + ends_w
        allowed_ww = torch.ones_like(sums_ww, dtype=torch.bool).triu().tril(longest - 1)
        best = int(sums_ww.masked_fill(~allowed_ww, -torch.inf).argmax())
        first, last = divmod(best, len(starts_w))
        margin = float(sums_ww[first, last]) - none
        if margin > found.margin:
            found = Found(window.span.first + first, window.span.first + last, margin)
    return found


def answer_of(passage: str, windows: Sequence[Window], scores: Sequence[Tensor]) -> str:
    """What the best stretch says, or nothing where none is likelier."""
    found = best_stretch(windows, scores)
    return stretch(passage, units(passage), found.first, found.last) if found.margin > 0 else ""


class Extracted(NamedTuple):
    """An answer: characters [start, end) of a passage, and how likely it is, where there being none is the alternative."""

    start: int
    end: int
    probability: float


class Passage(NamedTuple):
    """A text that a question is on, and the windows that a model reads of the two."""

    text: str
    spans: list[tuple[int, int]]
    windows: list[Window]

    @classmethod
    def of(cls, tokenizer: Tokenizer, question: str, text: str, length: int) -> "Passage":
        """`text` behind the question, in windows of at most `length` tokens.

        Raises:
            ConfigError: there is no question or no text.
        """
        spans = units(text)
        if not question.strip() or not spans:
            raise ConfigError("This needs a question, and a text that it is on.")
        lead, *words = encoded_words(tokenizer, [question.strip(), *(text[a:b] for a, b in spans)])
        return cls(text, spans, windows_of(words, length, lead))

    def answer(self, scores: Sequence[Tensor], longest: int = LONGEST_ANSWER) -> Extracted:
        """The likeliest answer of at most `longest` units, by what `word_scores` says of the windows and of texts as a whole."""
        found = best_stretch(self.windows, scores, longest)
        said = stretch(self.text, self.spans, found.first, found.last)
        start = self.text.index(said, self.spans[found.first][0])
        return Extracted(start, start + len(said), float(torch.tensor(found.margin).sigmoid()))


def extract(
    model: Transformer, tokenizer: Tokenizer, question: str, text: str, longest: int = LONGEST_ANSWER
) -> Extracted:
    """The likeliest answer to a question on a text, as `Passage` has it."""
    passage = Passage.of(tokenizer, question, text, model.config.context_length)
    return passage.answer(word_scores(model, tokenizer, passage.windows, whole=True), longest)


def answer_question(model: Transformer, tokenizer: Tokenizer, text: str) -> str:
    """The answer for a person to a question, in the first line of `text`, on the passage behind it.

    Raises:
        ConfigError: there is no question or no passage.
    """
    question, passage = question_and_passage(text)
    return answer_text(passage, extract(model, tokenizer, question, passage))


def question_and_passage(text: str) -> tuple[str, str]:
    """The first line of a text, and what is behind it; a ConfigError where one of them is empty."""
    question, _, passage = text.strip().partition("\n")
    if not question or not units(passage):
        raise ConfigError(
            "prompt: this model answers questions: give one, a line end, and the text that it is on."
        )
    return question, passage


def answer_text(passage: str, found: Extracted) -> str:
    """What an answer on a passage says, or that there is none."""
    return passage[found.start : found.end] if found.probability > 0.5 else "(no answer)"
