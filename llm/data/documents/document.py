"""What a source of text is: documents, the pieces that they are read in, and the plan that is made of them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from llm.data.documents.verbatim import VERBATIM
from llm.redaction import redacted_text

if TYPE_CHECKING:
    from llm.data.files.inputs import InputFiles

CASES_KEPT = 100


# Stand in no UTF-8 text: between the sides of a pair, and between words of a side that are encoded each by itself.
BETWEEN = b"\xff"
BETWEEN_WORDS = b"\xfe"


@dataclass(frozen=True)
class Document:
    """One UTF-8 text, or a part of one that is too long to be held whole; a pair of texts with `BETWEEN` between.

    A side may be words with `BETWEEN_WORDS` between, and the last one `VERBATIM` (see llm.data.documents.verbatim).

    `offset` is the byte at which the part starts in its document (0: the document starts here), `size` the
    bytes of the whole document and `whole_digest` its hex SHA-256, where the text at hand isn't the whole.
    """

    id: str
    data: bytes
    offset: int = 0
    size: int | None = None
    whole_digest: str | None = None

    @property
    def text(self) -> str:
        """The text of this part, the sides of a pair on lines of their own."""
        return "\n".join(self.sides)

    @property
    def sides(self) -> list[str]:
        """The text, or what of a pair's two texts is in this part; what is verbatim is none."""
        sides = self.data.replace(BETWEEN_WORDS, b"").split(BETWEEN)
        return [side.decode("utf-8") for side in sides if not side.startswith(VERBATIM)]

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the whole document's bytes."""
        return self.whole_digest or hashlib.sha256(self.data).hexdigest()

    @property
    def total(self) -> int:
        """Bytes of the whole document."""
        return len(self.data) if self.size is None else self.size


@dataclass
class LeftOut:
    """What was left out: how often for which reason, and for each reason the first cases, `(id, why)`."""

    counts: Counter[str] = field(default_factory=Counter)
    cases: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, reason: str, id_: str = "", why: str = "") -> None:
        """Count one; `id_` says where it stood, `why` what was wrong with it."""
        self.counts[reason] += 1
        if why and len(self.cases.setdefault(reason, [])) < CASES_KEPT:
            self.cases[reason].append((redacted_text(id_), redacted_text(why)))

    def include(self, counts: Mapping[str, int], cases: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Add what was left out elsewhere."""
        self.counts.update(counts)
        for reason, some in cases.items():
            room = CASES_KEPT - len(self.cases.setdefault(reason, []))
            self.cases[reason] += [(id_, why) for id_, why in some[:room]]


class Piece(Protocol):
    """A picklable unit of work, of tens of megabytes at most where the source can be cut."""

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the documents in order; what had to be left out is told to `left_out`."""
        ...


@dataclass(frozen=True)
class Part:
    """A stretch of a document in one of the two streams; `starts` where that stream sees it begin."""

    held_out: bool
    starts: bool
    document: Document


class Split(Protocol):
    """Decides, document by document and without state, what is held out."""

    def parts(self, document: Document) -> Iterator[Part]:
        """The document's stretches, in order."""
        ...

    def settings(self) -> dict[str, Any]:
        """What decides the split besides the contents, for the fingerprint."""
        ...


@dataclass(frozen=True)
class ReadingPlan:
    """What a source found: enough to name the corpus and to do the work in pieces.

    `n_bytes` is about how much text there is (None: nobody knows), `left_out` tells what is left out
    already, and `cleaning` what steps did (see llm.data.preparation.clean), where there were any.
    """

    fingerprint: str
    pieces: Sequence[Piece]
    split: Split
    n_bytes: int | None
    left_out: LeftOut = field(default_factory=LeftOut)
    cleaning: dict[str, Any] | None = None


class Source(Protocol):
    """Where text comes from."""

    @property
    def corpus_name(self) -> str:
        """What the folder of its shards is called, before the fingerprint."""
        ...

    @property
    def validation_share(self) -> float | None:
        """The share that is held out; None where it is another matter what is."""
        ...

    def plan(self, files: "InputFiles") -> ReadingPlan:
        """Look at the source (contents hashed through `files`) and plan the work.

        Raises ConfigError where the settings are wrong, DataError where the contents are.
        """
        ...


def fingerprint(settings: dict[str, Any], contents: Iterable[str] = ()) -> str:
    """Hex SHA-256 of JSON-like settings and of any number of content hashes."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for content in contents:
        digest.update(b"\n" + content.encode())
    return digest.hexdigest()
