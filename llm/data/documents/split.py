"""What is held out for validation: decided once, from contents alone, the same on every machine."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from llm.data.documents import BETWEEN, Document, LeftOut, Part, Piece, Split
from llm.data.files.cutting import boundary
from llm.errors import ConfigError, DataError

FEW_DOCUMENTS = 40
DEFAULT_SHARE = 0.05
LINE_REACH_BYTES = 1 << 14
NO_COPY = "0" * 64


@dataclass(frozen=True)
class HashSplit:
    """Holds out the documents whose SHA-256 falls in the first `share` of its range, and the one of `digest`."""

    share: float
    digest: str | None = None

    def parts(self, document: Document) -> Iterator[Part]:
        """One part, held out or not."""
        held_out = document.digest == self.digest or int(document.digest[:16], 16) < self.share * 2**64
        yield Part(held_out, document.offset == 0, document)

    def settings(self) -> dict[str, Any]:
        """The rule and its share."""
        return {"rule": "hash", "share": self.share}


@dataclass(frozen=True)
class PathSplit:
    """Holds out the documents whose id has a SHA-256 that is, as an integer, 0 modulo `modulo`."""

    modulo: int

    def parts(self, document: Document) -> Iterator[Part]:
        """One part, held out or not."""
        held_out = int(hashlib.sha256(document.id.encode()).hexdigest(), 16) % self.modulo == 0
        yield Part(held_out, document.offset == 0, document)

    def settings(self) -> dict[str, Any]:
        """The rule and its modulus."""
        return {"rule": "path", "modulo": self.modulo}


@dataclass(frozen=True)
class IdSplit:
    """Holds out the documents whose id's SHA-256 falls in the first `share` of its range, and those of the id `also`."""

    share: float
    also: str

    def parts(self, document: Document) -> Iterator[Part]:
        """One part, held out or not."""
        held_out = self.share > 0 and (
            document.id == self.also or int(self.hash(document), 16) < self.share * 2**256
        )
        yield Part(held_out, document.offset == 0, document)

    @staticmethod
    def hash(document: Document) -> str:
        """The SHA-256 of a document's id, in hex."""
        return hashlib.sha256(document.id.encode("utf-8", "replace")).hexdigest()

    def settings(self) -> dict[str, Any]:
        """The rule and its share."""
        return {"rule": "id", "share": self.share}


@dataclass(frozen=True)
class TailSplit:
    """Holds out the end of the whole: the document `cut` from about byte `offset` on, and those in `after`.

    A document of several texts is never cut, but held out whole.
    """

    share: float
    cut: str
    offset: int
    after: frozenset[str]

    def parts(self, document: Document) -> Iterator[Part]:
        """One part, or two where the cut, moved back to a line's end, falls inside."""
        at = self.offset - document.offset
        if document.id != self.cut or not 0 <= at < len(document.data):
            held_out = document.id in self.after or (document.id == self.cut and at < 0)
            yield Part(held_out, document.offset == 0, document)
            return
        at = 0 if BETWEEN in document.data else boundary(document.data, at, LINE_REACH_BYTES)
        if at > 0:
            head = document.data[:at]
            yield Part(
                False,
                document.offset == 0,
                Document(document.id, head, document.offset, document.total, document.digest),
            )
        yield Part(True, True, Document(document.id, document.data[at:], 0, document.total, NO_COPY))

    def settings(self) -> dict[str, Any]:
        """The rule and its share."""
        return {"rule": "tail", "share": self.share}


def check_share(share: float) -> None:
    """Raise ConfigError unless `share` is one."""
    if not 0 <= share <= 1:
        raise ConfigError(
            f"data.validation_share={share} is no share: give a number from 0 (hold nothing out) to 1 (everything)."
        )


def first_documents(pieces: Sequence[Piece]) -> list[Document]:
    """The first documents that have text, as many as `choose_split` looks at, without their text.

    Raises DataError where there are none.
    """
    left_out = LeftOut()
    documents = chain.from_iterable(piece.documents(left_out) for piece in pieces)
    full = (document for document in documents if document.data)
    first = [
        Document(document.id, b"", 0, document.total, document.digest)
        for document in islice(full, FEW_DOCUMENTS)
    ]
    if not first:
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in left_out.counts.items())
            or "none was left out as bad"
        )
        raise DataError(
            f"The data has no text: there is no document that isn't empty ({reasons}). "
            "Check the files and the field of text that data names (data.paths, data.text)."
        )
    return first


def choose_split(first: Sequence[Document], share: float) -> Split:
    """The split by `share` of a corpus whose first documents, `FEW_DOCUMENTS` where it has as many, are given.

    Of few documents the tail of the whole is held out, else each is held out by its hash; the smallest hash
    among the first ones is held out too, so that there is always something to validate on.
    """
    if share in (0, 1):
        return HashSplit(share)
    distinct: dict[str, Document] = {}
    for document in first:
        distinct.setdefault(document.digest, document)
    if len(first) >= FEW_DOCUMENTS:
        return HashSplit(share, min(distinct))
    return _tail_split(list(distinct.values()), share)


def split_by_hash(first: Sequence[Document], share: float) -> Split:
    """As `choose_split`, for documents that must not be cut."""
    return (
        HashSplit(share) if share in (0, 1) else HashSplit(share, min(document.digest for document in first))
    )


def _tail_split(documents: Sequence[Document], share: float) -> Split:
    room = int(sum(document.total for document in documents) * (1 - share))
    for index, document in enumerate(documents):
        if room < document.total:
            return TailSplit(
                share, document.id, room, frozenset(later.id for later in documents[index + 1 :])
            )
        room -= document.total
    return HashSplit(share)
