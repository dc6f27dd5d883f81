"""Raw documents to clean ones, once: every step over every piece by several processes, then what repeats left out.

The clean text lies in files, from which tokenizers are trained and shards made.
"""

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from llm.data.documents import Document, LeftOut, Piece, ReadingPlan, fingerprint
from llm.data.documents.split import choose_split, first_documents
from llm.data.executors.processes import Do
from llm.data.preparation.cleaned import CleanFiles, CleanPiece, Marks
from llm.data.preparation.compare import INDEX, LEFT_OUT, REPEATED, SUMS, compare, finished_index
from llm.data.preparation.numbered import HashedFile, finished_records
from llm.data.preparation.pipeline import Pipeline, whole_documents
from llm.data.preparation.progress import PrepareProgress
from llm.errors import DataError
from llm.files import write_json

# Counts in the fingerprint: raise it when the same steps give another text.
VERSION = 1
LEVEL = 1


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
    left_out, tallies, counts = LeftOut(), pipeline.tallies(), Counter[str]()
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    with ExitStack() as stack:
        compare = pipeline.comparisons | pipeline.lines
        names = ["jsonl.gz", "digests.bin", *(f"{name}.bin" for name in compare)]
        opened = [stack.enter_context(HashedFile(files.path(name))) for name in names]
        text_file, digests, *marks = opened
        for document in whole_documents(piece.documents(left_out)):
            if not document.data:
                left_out.add("empty")
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
        **{key: counts[key] for key in SUMS},
        "skipped": dict(left_out.counts),
        "cases": left_out.cases,
        "steps": {name: vars(tally) for name, tally in tallies.items()},
        "files": {files.path(name).name: file.sha256 for name, file in zip(names, opened, strict=True)},
    }
    write_json(files.record, record)
    return json.loads(json.dumps(record))


def cleaned_fingerprint(plan: ReadingPlan, pipeline: Pipeline) -> str:
    """What the clean text is known by: the raw text and the steps."""
    return fingerprint({"cleaned": VERSION, "text": plan.fingerprint, "steps": pipeline.settings()})


def clean(
    plan: ReadingPlan,
    pipeline: Pipeline,
    share: float | None,
    folder: Path,
    do: Do,
    progress: PrepareProgress,
) -> ReadingPlan:
    """A plan for the clean text of `plan`, which `do` makes in `folder` unless it is there; pieces that are done stay.

    `share` is held out of the clean text (None: what the plan holds out).

    Raises:
        DataError: no document is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [CleanFiles(folder, number) for number in range(len(plan.pieces))]
    progress.stage("Cleaning")
    job = CleanJob(plan.pieces, pipeline, folder)
    records = finished_records(job, len(files), do, plan.n_bytes, progress)
    index = finished_index(folder, records)
    if index is None:
        progress.stage("Comparing documents")
        index = compare(pipeline, files, records)
        write_json(folder / INDEX, index)
    _check_any_left(pipeline, records, index)
    pieces = _pieces(pipeline, files, records)
    left_out = _left_out(records, plan.left_out)
    left_out.counts["duplicate"] += index["duplicates"]
    return replace(
        plan,
        pieces=pieces,
        split=plan.split if share is None else choose_split(first_documents(pieces), share),
        n_bytes=index["kept_bytes"],
        left_out=left_out,
        cleaning=index,
    )


def _pieces(
    pipeline: Pipeline, files: Sequence[CleanFiles], records: Sequence[Mapping[str, Any]]
) -> list[CleanPiece]:
    """What the clean text is read by, each piece with the numbers of its first document and line."""
    name = next(iter(pipeline.lines), None)
    lines = [len(marks) for marks in Marks(files, name)] if name else [0] * len(files)
    firsts = accumulate((record["kept_documents"] for record in records), initial=0)
    folder = files[0].folder
    return [
        CleanPiece(file.path("jsonl.gz"), folder / LEFT_OUT, first, folder / REPEATED if name else None, line)
        for file, first, line in zip(files, firsts, accumulate(lines, initial=0), strict=False)
    ]


def _left_out(records: Sequence[Mapping[str, Any]], before: LeftOut) -> LeftOut:
    """What was lost before the steps and while they read, in new counts."""
    left_out = LeftOut(before.counts.copy(), dict(before.cases))
    for record in records:
        left_out.include(record["skipped"], record["cases"])
    return left_out


def _check_any_left(
    pipeline: Pipeline, records: Sequence[Mapping[str, Any]], index: Mapping[str, Any]
) -> None:
    """Raise DataError where no document is left, naming the steps."""
    if index["kept_documents"]:
        return
    if not index["documents"]:
        reasons = _most(_left_out(records, LeftOut()).counts) or "none is there"
        raise DataError(
            f"The data has no text: there is no document that isn't empty ({reasons}). "
            "Check the files and the field of text that data names (data.paths, data.text)."
        )
    dropping = [name for name in pipeline.names if index["steps"][name]["dropped"]]
    told = "; ".join(_dropped_by(name, index["steps"][name]) for name in dropping)
    raise DataError(
        f"No document is left of {index['documents']:,}: {told}. Loosen data.steps.{dropping[-1]}.*, or leave the step "
        f"out by data.steps.{dropping[-1]}=null."
    )


def _dropped_by(name: str, tally: Mapping[str, Any]) -> str:
    dropped = Counter(tally["dropped"])
    return f"{name} left out {dropped.total()} of {tally['documents']} ({_most(dropped, 3)})"


def _most(counts: Counter[str], n: int | None = None) -> str:
    """Counts in words: the `n` largest, or all by name."""
    return ", ".join(
        f"{count} {reason}" for reason, count in (counts.most_common(n) if n else sorted(counts.items()))
    )
