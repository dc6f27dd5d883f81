"""Raw documents to clean ones, once: every step over every piece by several processes, then what repeats left out.

The clean text lies in JSON lines in gzip, a file a piece, from which tokenizers are trained and shards made.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from llm.data.documents import Document, Losses, Piece, Plan, fingerprint
from llm.data.documents.split import choose_split, first_documents
from llm.data.executors.processes import Do
from llm.data.preparation.encode import HashedFile
from llm.data.preparation.pipeline import EXAMPLES_KEPT, Pipeline, Tally, whole_documents
from llm.data.preparation.progress import PrepareProgress
from llm.data.steps.contamination import Contamination
from llm.data.steps.duplicates import STARTS
from llm.data.steps.repeats import find_repeats
from llm.errors import DataError
from llm.files import read_object, sha256, write_json

# Counts in the fingerprint: raise it when the same steps give another text.
VERSION = 1
INDEX = "cleaned.json"
LEVEL = 1
LEFT_OUT = "left_out.bin"
REPEATED = "repeated_lines.bin"
NEAR = "nearly the same as an earlier document"
REPEATED_LINES = "lines as in an earlier place"
NO_LINE = "no line of its own"


@dataclass(frozen=True)
class CleanFiles:
    """Where the clean text of piece `number` lies: the record that vouches for the others last."""

    folder: Path
    number: int

    def path(self, suffix: str) -> Path:
        """The file of a kind: `jsonl.gz`, `digests.bin`, `<step that compares>.bin`."""
        return self.folder / f"{self.number:06d}.{suffix}"

    @property
    def record(self) -> Path:
        """JSON: counts, tallies and the SHA-256 of the other files."""
        return self.path("json")

    def finished(self) -> dict[str, Any] | None:
        """The record, if the piece is whole and undamaged."""
        try:
            record = read_object(self.record)
            whole = all(digest == sha256(self.folder / name) for name, digest in record["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return record if whole else None

    def digests(self) -> np.ndarray:
        """The first 64 bits of each document's SHA-256."""
        return np.fromfile(self.path("digests.bin"), "<u8")

    def marks(self, name: str, width: int, dtype: str) -> np.ndarray:
        """What a comparison kept (d, width), memory-mapped."""
        return _mapped(self.path(f"{name}.bin"), dtype).reshape(-1, width)

    def line_marks(self, name: str) -> np.ndarray:
        """What a comparison kept of lines (l,), memory-mapped."""
        return _mapped(self.path(f"{name}.bin"), "<u8")


def _mapped(path: Path, dtype: str) -> np.ndarray:
    """A file as an array, memory-mapped (which an empty file can't be)."""
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)


@dataclass(frozen=True)
class CleanJob:
    """The work on each piece."""

    pieces: Sequence[Piece]
    pipeline: Pipeline
    folder: Path

    def __call__(self, number: int) -> dict[str, Any]:
        """Clean a piece into its files; returns its record."""
        return clean_piece(self.pieces[number], self.pipeline, self.files(number))

    def files(self, number: int) -> CleanFiles:
        """Where they are."""
        return CleanFiles(self.folder, number)


def clean_piece(piece: Piece, pipeline: Pipeline, files: CleanFiles) -> dict[str, Any]:
    """Run the steps over a piece into its files; returns its record."""
    losses, tallies, counts = Losses(), pipeline.tallies(), Counter[str]()
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    with ExitStack() as stack:
        compare = pipeline.comparisons | pipeline.lines
        names = ["jsonl.gz", "digests.bin", *(f"{name}.bin" for name in compare)]
        opened = [stack.enter_context(HashedFile(files.path(name))) for name in names]
        text_file, digests, *marks = opened
        for document in whole_documents(piece.documents(losses)):
            if not document.data:
                losses.add("empty")
                continue
            counts.update(documents=1, bytes=len(document.data))
            text = pipeline(document.id, document.text, tallies)
            if text is None:
                continue
            clean = Document(document.id, text.encode())
            counts.update(kept_documents=1, kept_bytes=len(clean.data))
            line = json.dumps({"id": clean.id, "text": text}, ensure_ascii=False) + "\n"
            text_file.write(packer.compress(line.encode("utf-8", "replace")))
            digests.write(np.array([int(clean.digest[:16], 16)], "<u8"))
            for file, step in zip(marks, compare.values(), strict=True):
                file.write(step.marks(text))
        text_file.write(packer.flush())
    record = {
        **{key: counts[key] for key in ("documents", "bytes", "kept_documents", "kept_bytes")},
        "skipped": dict(losses.counts),
        "cases": losses.cases,
        "steps": {name: vars(tally) for name, tally in tallies.items()},
        "files": {files.path(name).name: file.sha256 for name, file in zip(names, opened, strict=True)},
    }
    write_json(files.record, record)
    return json.loads(json.dumps(record))


@dataclass(frozen=True)
class CleanPiece:
    """The clean documents of a piece, but for those whose numbers `left_out` names, counted from `first`.

    Nor are there the lines that are marked in the file `repeated`, where there is one, counted from `first_line`.
    """

    path: Path
    left_out: Path
    first: int
    repeated: Path | None
    first_line: int

    def documents(self, losses: Losses) -> Iterator[Document]:
        """Read the documents in order."""
        numbers = np.fromfile(self.left_out, "<u8")
        start = int(np.searchsorted(numbers, self.first))
        skip = iter(numbers[start:].tolist())
        following = next(skip, None)
        for number, (id_, text) in enumerate(self._texts(), self.first):
            if number == following:
                following = next(skip, None)
            else:
                yield Document(id_, text.encode())

    def _texts(self) -> Iterator[tuple[str, str]]:
        """The id and text of each document, without repeated lines."""
        if self.repeated is None:
            yield from read_clean(self.path)
            return
        repeated, at = _mapped(self.repeated, "?"), self.first_line
        for id_, text in read_clean(self.path):
            lines = text.split("\n")
            gone = repeated[at : at + len(lines)]
            at += len(lines)
            if gone.any():
                text = "\n".join(compress(lines, ~gone)).strip("\n")
            yield id_, text


def read_clean(path: Path) -> Iterator[tuple[str, str]]:
    """The id and text of each document in a file of clean text.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                record = json.loads(line)
                yield record["id"], record["text"]
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is damaged ({error}): delete {path.parent} and prepare the data again."
        ) from error


def cleaned_fingerprint(plan: Plan, pipeline: Pipeline) -> str:
    """What the clean text is known by: the raw text and the steps."""
    return fingerprint({"cleaned": VERSION, "text": plan.fingerprint, "steps": pipeline.settings()})


def clean(
    plan: Plan,
    pipeline: Pipeline,
    share: float | None,
    folder: Path,
    do: Do,
    progress: PrepareProgress,
) -> Plan:
    """A plan for the clean text of `plan`, which `do` makes in `folder` unless it is there; pieces that are done stay.

    `share` is held out of the clean text (None: what the plan holds out).

    Raises:
        DataError: no document is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [CleanFiles(folder, number) for number in range(len(plan.pieces))]
    records = _records(plan, pipeline, files, do, progress)
    index = _finished_index(folder, records)
    if index is None:
        progress.stage("Comparing documents")
        index = _compare(pipeline, files, records)
        write_json(folder / INDEX, index)
    _refuse_nothing(pipeline, records, index)
    firsts = np.cumsum([0, *(record["kept_documents"] for record in records)]).tolist()
    name = next(iter(pipeline.lines), None)
    lines = np.cumsum([0, *(len(file.line_marks(name)) if name else 0 for file in files)]).tolist()
    pieces = [
        CleanPiece(file.path("jsonl.gz"), folder / LEFT_OUT, first, folder / REPEATED if name else None, line)
        for file, first, line in zip(files, firsts, lines, strict=False)
    ]
    losses = Losses(plan.losses.counts.copy(), dict(plan.losses.cases))
    for record in records:
        losses.include(record["skipped"], record["cases"])
    losses.counts["duplicate"] += index["duplicates"]
    return replace(
        plan,
        pieces=pieces,
        split=plan.split if share is None else choose_split(first_documents(pieces), share),
        n_bytes=index["kept_bytes"],
        losses=losses,
        cleaning=index,
    )


def _records(
    plan: Plan,
    pipeline: Pipeline,
    files: Sequence[CleanFiles],
    do: Do,
    progress: PrepareProgress,
) -> list[dict[str, Any]]:
    """The records of all pieces, those made that weren't finished before."""
    progress.stage("Cleaning")
    done = {file.number: record for file in files if (record := file.finished())}
    waiting = [file.number for file in files if file.number not in done]
    job = CleanJob(plan.pieces, pipeline, files[0].folder)
    _tell(done, len(files), plan, progress)
    for number, record in do(job, waiting, plan.n_bytes):
        done[number] = record
        _tell(done, len(files), plan, progress)
    return [done[file.number] for file in files]


def _tell(done: Mapping[int, dict[str, Any]], count: int, plan: Plan, progress: PrepareProgress) -> None:
    documents, n_bytes, kept = (
        sum(record[key] for record in done.values()) for key in ("documents", "bytes", "kept_bytes")
    )
    # Pieces are about alike, and a compressed source doesn't know how much text is in it.
    total = n_bytes * count // len(done) if n_bytes else plan.n_bytes
    progress.update(documents, n_bytes, total)
    if n_bytes:
        progress.keeping(kept / n_bytes)


def _finished_index(folder: Path, records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The index, if it is of these records and what it vouches for is undamaged."""
    try:
        index = read_object(folder / INDEX)
        whole = index["of"] == _names(records) and all(
            digest == sha256(folder / name) for name, digest in index["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return None
    return index if whole else None


def _names(records: Sequence[dict[str, Any]]) -> str:
    return fingerprint({}, (digest for record in records for digest in record["files"].values()))


def _compare(
    pipeline: Pipeline, files: Sequence[CleanFiles], records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Find what repeats, write down its numbers, and add up what the steps did."""
    tallies = pipeline.tallies()
    for record in records:
        for name, tally in record["steps"].items():
            tallies[name].include(tally)
    digests = [partial(CleanFiles.digests, file) for file in files]
    repeats = find_repeats(digests)
    left_out = repeats
    for name, step in pipeline.comparisons.items():
        near = step.repeats([file.marks(name, step.width, step.dtype) for file in files])
        new = ~np.isin(near.numbers, left_out)
        numbers, of = near.numbers[new], near.of[new]
        left_out = np.union1d(left_out, numbers)
        _tally_repeats(tallies[name], files, numbers, of, sum(record["kept_documents"] for record in records))
    contents = {}
    if pipeline.lines:
        left_out, contents[REPEATED] = _compare_lines(pipeline, files, left_out, tallies)
    contents[LEFT_OUT] = left_out.astype("<u8")
    sums = {
        key: sum(record[key] for record in records)
        for key in ("documents", "bytes", "kept_documents", "kept_bytes")
    }
    return {
        **sums,
        "kept_documents": sums["kept_documents"] - len(left_out),
        "duplicates": len(repeats),
        "steps": {name: vars(tally) for name, tally in tallies.items()},
        "looked_for_overlap": [
            name for name, step in pipeline.steps.items() if isinstance(step, Contamination)
        ],
        "files": {name: _written(files[0].folder / name, content) for name, content in contents.items()},
        "of": _names(records),
    }


def _written(path: Path, content: np.ndarray) -> str:
    with HashedFile(path) as file:
        file.write(content)
    return file.sha256


def _compare_lines(
    pipeline: Pipeline, files: Sequence[CleanFiles], left_out: np.ndarray, tallies: Mapping[str, Tally]
) -> tuple[np.ndarray, np.ndarray]:
    """The documents that are left out, now also for want of lines, and whether each line (l,) repeats an earlier one."""
    ((name, step),) = pipeline.lines.items()
    marks = [file.line_marks(name) for file in files]
    repeated = np.zeros(sum(map(len, marks)), bool)
    for numbers in step.repeated_lines(marks, left_out):
        repeated[numbers] = True
    empty: list[np.ndarray] = []
    shown: list[tuple[int, int]] = []
    document, line = 0, 0
    for some in marks:
        starts = np.flatnonzero(some & STARTS)
        gone, counts = repeated[line : line + len(some)], some & ~STARTS != 0
        if gone.any():
            lose, keep = (np.logical_or.reduceat(lines, starts) for lines in (gone, counts & ~gone))
            empty.append(document + np.flatnonzero(lose & ~keep))
            first = np.flatnonzero(gone)[: EXAMPLES_KEPT - len(shown)]
            own = np.searchsorted(starts, first, side="right") - 1
            shown += zip((document + own).tolist(), (first - starts[own]).tolist(), strict=True)
        document, line = document + len(starts), line + len(some)
    tally, none_left = tallies[name], np.concatenate([np.zeros(0, np.int64), *empty])
    tally.documents = document - len(left_out)
    if shown:
        tally.remarks[REPEATED_LINES] = int(repeated.sum())
    if len(none_left):
        tally.dropped[NO_LINE] = len(none_left)
    texts = _documents_at(files, {number for number, _ in shown})
    for number, at in shown:
        tally.show(REPEATED_LINES, texts[number][0], texts[number][1].split("\n")[at])
    return np.union1d(left_out, none_left), repeated


def _tally_repeats(
    tally: Tally, files: Sequence[CleanFiles], numbers: np.ndarray, of: np.ndarray, documents: int
) -> None:
    tally.documents = documents
    if not len(numbers):
        return
    tally.dropped[NEAR] = len(numbers)
    wanted = {int(number) for number in (*numbers[:3], *of[:3])}
    texts = _documents_at(files, wanted)
    for number, other in zip(numbers[:3].tolist(), of[:3].tolist(), strict=True):
        tally.show(NEAR, f"{texts[number][0]}, as {texts[other][0]}", texts[number][1], texts[other][1])


def _documents_at(files: Sequence[CleanFiles], numbers: set[int]) -> dict[int, tuple[str, str]]:
    """The documents of some numbers, counted over all pieces."""
    found, first = {}, 0
    for file in files:
        count = len(file.digests())
        if any(first <= number < first + count for number in numbers):
            for number, document in enumerate(read_clean(file.path("jsonl.gz")), first):
                if number in numbers:
                    found[number] = document
        first += count
    return found


def _refuse_nothing(pipeline: Pipeline, records: Sequence[dict[str, Any]], index: Mapping[str, Any]) -> None:
    """Raise DataError where no document is left, naming the steps."""
    if index["kept_documents"]:
        return
    if not index["documents"]:
        losses = Losses()
        for record in records:
            losses.include(record["skipped"], record["cases"])
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in sorted(losses.counts.items()))
            or "none is there"
        )
        raise DataError(f"The data has no text: there is no document that isn't empty ({reasons}).")
    told = []
    for name in pipeline.names:
        dropped = index["steps"][name]["dropped"]
        if dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(dropped).most_common(3))
            told.append(
                f"{name} left out {sum(dropped.values())} of {index['steps'][name]['documents']} ({reasons})"
            )
    last = next(name for name in reversed(pipeline.names) if index["steps"][name]["dropped"])
    raise DataError(
        f"No document is left of {index['documents']:,}: {'; '.join(told)}. Loosen data.steps.{last}.*, or leave the "
        f"step out by data.steps.{last}=null."
    )
