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
from pathlib import Path
from typing import Any

import numpy as np

from llm.data import pool
from llm.data.assemble import find_repeats
from llm.data.documents import Document, Losses, Piece, Plan, fingerprint
from llm.data.encode import HashedFile
from llm.data.pipeline import Pipeline, Tally, whole_documents
from llm.data.progress import PrepareProgress
from llm.data.split import choose_split, first_documents
from llm.errors import DataError
from llm.files import read_object, sha256, write_json

# Counts in the fingerprint: raise it when the same steps give another text.
VERSION = 1
INDEX = "cleaned.json"
LEVEL = 1
NEAR = "nearly the same as an earlier document"


@dataclass(frozen=True)
class CleanFiles:
    """Where the clean text of piece `number` lies: the record that vouches for the others last."""

    folder: Path
    number: int

    def path(self, suffix: str) -> Path:
        """The file of a kind: `jsonl.gz`, `digests.bin`, `<comparison>.bin`."""
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
        path = self.path(f"{name}.bin")
        if path.stat().st_size == 0:
            return np.zeros((0, width), dtype)
        return np.memmap(path, dtype, mode="r").reshape(-1, width)


@dataclass(frozen=True)
class CleanJob:
    """The work on each piece."""

    pieces: Sequence[Piece]
    pipeline: Pipeline
    folder: Path

    def __call__(self, number: int) -> dict[str, Any]:
        """Clean a piece into its files; returns its record."""
        return clean_piece(self.pieces[number], self.pipeline, CleanFiles(self.folder, number))


def clean_piece(piece: Piece, pipeline: Pipeline, files: CleanFiles) -> dict[str, Any]:
    """Run the steps over a piece into its files; returns its record."""
    losses, tallies, counts = Losses(), pipeline.tallies(), Counter[str]()
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    with ExitStack() as stack:
        names = ["jsonl.gz", "digests.bin", *(f"{name}.bin" for name in pipeline.comparisons)]
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
            for file, comparison in zip(marks, pipeline.comparisons.values(), strict=True):
                file.write(comparison.marks(text))
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
    """The clean documents of a piece, but for those whose numbers `left_out` names, counted from `first`."""

    path: Path
    left_out: Path
    first: int

    def documents(self, losses: Losses) -> Iterator[Document]:
        """Read the documents in order."""
        numbers = np.fromfile(self.left_out, "<u8")
        start = int(np.searchsorted(numbers, self.first))
        skip = iter(numbers[start:].tolist())
        following = next(skip, None)
        for number, (id_, text) in enumerate(read_clean(self.path), self.first):
            if number == following:
                following = next(skip, None)
            else:
                yield Document(id_, text.encode())


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
    processes: int | None,
    progress: PrepareProgress,
) -> Plan:
    """A plan for the clean text of `plan`, which is made in `folder` unless it is there; pieces that are done stay.

    `share` is held out of the clean text (None: what the plan holds out).

    Raises:
        DataError: no document is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [CleanFiles(folder, number) for number in range(len(plan.pieces))]
    records = _records(plan, pipeline, files, processes, progress)
    index = _finished_index(folder, records)
    if index is None:
        progress.stage("Comparing documents")
        index = _compare(pipeline, files, records)
        write_json(folder / INDEX, index)
    _refuse_nothing(pipeline, records, index)
    firsts = np.cumsum([0, *(record["kept_documents"] for record in records)]).tolist()
    pieces = [
        CleanPiece(file.path("jsonl.gz"), folder / "left_out.bin", first)
        for file, first in zip(files, firsts, strict=False)
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
    processes: int | None,
    progress: PrepareProgress,
) -> list[dict[str, Any]]:
    """The records of all pieces, those made that weren't finished before."""
    progress.stage("Cleaning")
    done = {file.number: record for file in files if (record := file.finished())}
    waiting = [file.number for file in files if file.number not in done]
    job = CleanJob(plan.pieces, pipeline, files[0].folder)
    _tell(done, len(files), plan, progress)
    for number, record in pool.run(job, waiting, pool.how_many(processes, len(waiting), plan.n_bytes)):
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
        whole = index["left_out_sha256"] == sha256(folder / "left_out.bin") and index["of"] == _names(records)
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
    with HashedFile(files[0].folder / "left_out.bin") as file:
        file.write(left_out.astype("<u8"))
    sums = {
        key: sum(record[key] for record in records)
        for key in ("documents", "bytes", "kept_documents", "kept_bytes")
    }
    return {
        **sums,
        "kept_documents": sums["kept_documents"] - len(left_out),
        "duplicates": len(repeats),
        "steps": {name: vars(tally) for name, tally in tallies.items()},
        "left_out_sha256": file.sha256,
        "of": _names(records),
    }


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
