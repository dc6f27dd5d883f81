"""Questions on passages as text: a question as a document, and how far an answer is right; light to import."""

import json
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm.data.documents import BETWEEN, BETWEEN_WORDS
from llm.data.documents.verbatim import VERBATIM
from llm.errors import DataError

# A word, or another character, with the space before it.
UNIT = re.compile(r"\s*(?:\w+|[^\w\s])")
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answer(NamedTuple):
    """A stretch of a passage, and the character at which it starts there."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """What a document keeps of a question.

    Args:
        passage: the text that is asked about.
        answers: right answers; empty where the passage has none.
        first, last: the units of the passage that the first answer is made of; -1 where there is none.
    """

    passage: str
    answers: list[str]
    first: int
    last: int

    @classmethod
    def of(cls, about: bytes) -> "Question":
        """The question that a document keeps."""
        return cls(**json.loads(about))


def units(passage: str) -> list[tuple[int, int]]:
    """Where the words and other characters of a passage stand, with the space before each: [start, end)."""
    return [match.span() for match in UNIT.finditer(passage)]


def stretch(passage: str, spans: Sequence[tuple[int, int]], first: int, last: int) -> str:
    """What units `first` to `last` of a passage say."""
    return passage[spans[first][0] : spans[last][1]].strip()


def asked(question: str, passage: str, answers: Sequence[Answer]) -> bytes:
    """The document of a question: its text, the passage's units, and what is right.

    Raises:
        DataError: question or passage are empty, or an answer isn't where it is said to start.
    """
    if not (isinstance(question, str) and question.strip() and isinstance(passage, str) and passage.strip()):
        raise DataError("its question or its passage is empty, or no text.")
    for text, start in answers:
        if not isinstance(text, str) or not text.strip() or type(start) is not int or start < 0:
            raise DataError(f"its answer {text!r} at {start!r} is no text with a character to start at.")
        if passage[start : start + len(text)] != text:
            place = passage.find(text)
            seen = f"it starts at {place}" if place >= 0 else "it is nowhere in the passage"
            raise DataError(f"its answer {text!r} doesn't stand at character {start} of the passage: {seen}.")
    spans = units(passage)
    edges = _edges(spans, answers[0]) if answers else (-1, -1)
    kept = {"passage": passage, "answers": [text for text, _ in answers], "first": edges[0], "last": edges[1]}
    words = [question.strip(), *(passage[start:end] for start, end in spans)]
    try:
        encoded = BETWEEN_WORDS.join(word.encode() for word in words)
    except UnicodeEncodeError as error:
        raise DataError(f"its text holds a lone surrogate, which is no Unicode ({error}).") from error
    return encoded + BETWEEN + VERBATIM + json.dumps(kept, ensure_ascii=False).encode()


def _edges(spans: Sequence[tuple[int, int]], answer: Answer) -> tuple[int, int]:
    """The first and the last unit that an answer has a part in."""
    end = answer.start + len(answer.text.rstrip())
    start = answer.start + len(answer.text) - len(answer.text.lstrip())
    inside = [number for number, span in enumerate(spans) if span[0] < end and start < span[1]]
    return inside[0], inside[-1]


def normalized(text: str) -> str:
    """A text as answers are compared: without case, punctuation, articles and spare space (arXiv 1606.05250)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1 where an answer is one of the right ones, else 0; the empty one is right where there is none."""
    return max(float(normalized(predicted) == normalized(right)) for right in _right(answers))


def overlap_f1(predicted: str, answers: Sequence[str]) -> float:
    """F1 of an answer's words and those of the right one that is nearest; the empty one is right where there is none."""
    return max(_f1(normalized(predicted).split(), normalized(right).split()) for right in _right(answers))


def _right(answers: Sequence[str]) -> Sequence[str]:
    """The right answers of which anything is left to compare, or the empty one."""
    return [right for right in answers if normalized(right)] or [""]


def _f1(predicted: list[str], right: list[str]) -> float:
    if not predicted or not right:
        return float(predicted == right)
    both = (Counter(predicted) & Counter(right)).total()
    return 2 * both / (len(predicted) + len(right)) if both else 0.0
