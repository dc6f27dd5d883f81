"""Text files, a document a file, of any size and number."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llm.data.cutting import piece_bytes, ranges, read_blocks
from llm.data.documents import Document, Piece, Plan, Split, fingerprint
from llm.data.inputs import FileFacts, InputFiles, OnBadFile, check_on_bad_file, find_files
from llm.data.split import DEFAULT_SHARE, FEW_DOCUMENTS, check_share, choose_split
from llm.errors import DataError


@dataclass(frozen=True)
class TextFile:
    """A file to read: the id of its document, its path and what is known of it."""

    id: str
    path: Path
    facts: FileFacts


@dataclass(frozen=True)
class Segment:
    """The bytes [start, end) of a text file."""

    file: TextFile
    start: int
    end: int

    def documents(self) -> Iterator[Document]:
        """The segment in blocks."""
        file, facts = self.file, self.file.facts
        with file.path.open("rb") as opened:
            for offset, block in read_blocks(opened, self.start, self.end):
                yield Document(file.id, block, offset, facts.size, facts.sha256)


@dataclass(frozen=True)
class TextPiece:
    """Segments of text files."""

    segments: tuple[Segment, ...]

    def documents(self, skipped: Counter[str]) -> Iterator[Document]:
        """Read the segments in order."""
        for segment in self.segments:
            try:
                yield from segment.documents()
            except OSError as error:
                raise DataError(f"{segment.file.path} can't be read any more: {error.strerror}.") from error


@dataclass(frozen=True)
class TextFiles:
    """Source: the files that the patterns `paths` match, recursive by `**`.

    `validation_share` of the text is held out. `on_bad_file` says whether a binary or non-UTF-8 file stops
    the preparation (`error`) or is counted and left out (`skip`).
    """

    paths: str | Sequence[str]
    validation_share: float = DEFAULT_SHARE
    on_bad_file: OnBadFile = "error"
    corpus_name = "text"

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        check_on_bad_file(self.on_bad_file)

    def plan(self, files: InputFiles) -> Plan:
        """Hash the files, drop empty, bad and duplicate ones, and cut the rest into pieces."""
        skipped: Counter[str] = Counter()
        found = [(str(path), path) for path in find_files(self.paths)]
        kept = usable_files(found, files, self.on_bad_file, skipped)
        first = [
            Document(file.id, b"", 0, file.facts.size, file.facts.sha256)
            for file in islice(kept, FEW_DOCUMENTS)
        ]
        split = choose_split(first, self.validation_share)
        return plan_text(kept, split, skipped, (file.facts.sha256 for file in kept))


def usable_files(
    found: Sequence[tuple[str, Path]], files: InputFiles, on_bad_file: OnBadFile, skipped: Counter[str]
) -> list[TextFile]:
    """The (id, path) pairs that hold text not seen before; the others are counted in `skipped`.

    Raises DataError for a bad file where `on_bad_file` is `error`, and where nothing is left.
    """
    kept: dict[str, TextFile] = {}
    for id_, path in found:
        facts = files.facts(path)
        if facts.flaw and on_bad_file == "error":
            raise DataError(
                f"{path}: {facts.flaw}. Convert or remove it, or leave such files out by data.on_bad_file=skip."
            )
        reason = _reason_to_skip(facts, kept)
        if reason:
            skipped[reason] += 1
        else:
            kept[facts.sha256] = TextFile(id_, path, facts)
    files.save()
    if not kept:
        raise DataError(
            f"None of {len(found)} files has text ({_listing(skipped)}), the first being {found[0][1]}."
        )
    return list(kept.values())


def _reason_to_skip(facts: FileFacts, kept: dict[str, TextFile]) -> str | None:
    if facts.flaw:
        return "bad"
    if facts.size == 0:
        return "empty"
    return "duplicate" if facts.sha256 in kept else None


def _listing(skipped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))


def plan_text(
    files: Sequence[TextFile], split: Split, skipped: Counter[str], contents: Iterator[str]
) -> Plan:
    """The plan for text files whose order and split are known; `contents` are what the fingerprint is made of."""
    n_bytes = sum(file.facts.size for file in files)
    pieces = tuple(_pieces(files, piece_bytes(n_bytes)))
    settings = {"kind": "text", "split": split.settings()}
    return Plan(fingerprint(settings, contents), pieces, split, n_bytes, skipped)


def _pieces(files: Sequence[TextFile], limit: int) -> Iterator[Piece]:
    """Whole files together up to `limit` bytes, larger files cut."""
    waiting: list[Segment] = []
    room = limit
    for file in files:
        size = file.facts.size
        if waiting and size > room:
            yield TextPiece(tuple(waiting))
            waiting, room = [], limit
        if size <= limit:
            waiting.append(Segment(file, 0, size))
            room -= size
            continue
        with file.path.open("rb") as opened:
            for start, end in ranges(opened, size, limit):
                yield TextPiece((Segment(file, start, end),))
    if waiting:
        yield TextPiece(tuple(waiting))
