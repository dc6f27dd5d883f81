"""Tags of words as text: a sentence as a document, and the entities that BIO tags mark; light to import."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from llm.data.documents import BETWEEN, BETWEEN_WORDS
from llm.data.documents.verbatim import VERBATIM
from llm.errors import DataError

OUTSIDE = "O"
BETWEEN_TAGS = "\n"
# What words are, where nobody has told.
WORD = re.compile(r"\w+|[^\w\s]")


def tagged(words: Sequence[str], tags: Sequence[str]) -> bytes:
    """The document of a sentence: its words as they stand behind one another, and their tags.

    Raises:
        DataError: there are more of the one than of the other, or one of them is empty.
    """
    if len(words) != len(tags):
        raise DataError(f"the sentence has {len(words)} words and {len(tags)} tags: it needs a tag a word.")
    if not all(word.strip() for word in words) or not all(tag.strip() for tag in tags):
        raise DataError("a word or a tag of the sentence is empty.")
    if any(BETWEEN_TAGS in tag for tag in tags):
        raise DataError("a tag of the sentence holds a line end.")
    kept = BETWEEN_TAGS.join(tags).encode()
    return BETWEEN_WORDS.join(spaced(words)) + BETWEEN + VERBATIM + kept if words else b""


def words_and_tags(data: bytes) -> tuple[list[str], list[str]] | None:
    """The words of a document that `tagged` made, without the space before them, and their tags; None of any other."""
    sentence, _, kept = data.partition(BETWEEN)
    if not kept.startswith(VERBATIM):
        return None
    words = [word.decode().removeprefix(" ") for word in sentence.split(BETWEEN_WORDS)]
    tags = tags_of(kept.removeprefix(VERBATIM))
    return (words, tags) if len(words) == len(tags) else None


def spaced(words: Sequence[str]) -> list[bytes]:
    """Words as a running text has them: a space before each but the first."""
    return [f" {word}".encode() if number else word.encode() for number, word in enumerate(words)]


def is_bio(tags: Sequence[str]) -> bool:
    """Whether tags mark the words of entities: B-x begins one, I-x goes on with it, O is none."""
    return all(tag == OUTSIDE or tag[:2] in ("B-", "I-") for tag in tags) and set(tags) != {OUTSIDE}


def with_both_sides(tags: set[str]) -> set[str]:
    """BIO tags, and for each kind of entity the one of its two that is missing."""
    kinds = {tag[2:] for tag in tags if tag != OUTSIDE}
    return {OUTSIDE, *(side + kind for side in ("B-", "I-") for kind in kinds)}


class Entity(NamedTuple):
    """Words [first, end) of a sentence that name something of a kind."""

    kind: str
    first: int
    end: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that BIO tags mark, as CoNLL's script and seqeval count them: I-x behind another kind begins one."""
    found: list[Entity] = []
    for number, (before, tag) in enumerate(pairwise([OUTSIDE, *tags])):
        if tag == OUTSIDE:
            continue
        if tag.startswith("I-") and before != OUTSIDE and before[2:] == tag[2:]:
            found[-1] = found[-1]._replace(end=number + 1)
        else:
            found.append(Entity(tag[2:], number, number + 1))
    return found


def tags_of(about: bytes) -> list[str]:
    """The tags that a sentence keeps."""
    return about.decode().split(BETWEEN_TAGS)
