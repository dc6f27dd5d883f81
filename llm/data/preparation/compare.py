"""What repeats over all the clean text: documents, near-duplicates and lines, found once all pieces are there."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from llm.data.documents import fingerprint
from llm.data.preparation.cleaned import CleanFiles, Marks, documents_at
from llm.data.preparation.numbered import HashedFile
from llm.data.preparation.pipeline import EXAMPLES_KEPT, Pipeline, Tally
from llm.data.steps.contamination import Contamination
from llm.data.steps.duplicates import STARTS
from llm.data.steps.repeats import find_repeats
from llm.files import read_object, sha256

INDEX = "cleaned.json"
LEFT_OUT = "left_out.bin"
REPEATED = "repeated_lines.bin"
NEAR = "nearly the same as an earlier document"
REPEATED_LINES = "lines as in an earlier place"
NO_LINE = "no line of its own"
# Of a record, what is added up over all pieces.
SUMS = ("documents", "bytes", "kept_documents", "kept_bytes")


def finished_index(folder: Path, records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
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


def compare(
    pipeline: Pipeline, files: Sequence[CleanFiles], records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Find what repeats, write down its numbers, and add up what the steps did."""
    sums = {key: sum(record[key] for record in records) for key in SUMS}
    tallies = _tallies(pipeline, records)
    repeats = find_repeats([partial(CleanFiles.digests, file) for file in files])
    left_out: np.ndarray = repeats
    contents: dict[str, np.ndarray] = {}
    for name, step in pipeline.comparisons.items():
        near = step.repeats(Marks(files, name, step.dtype, step.width))
        new = ~np.isin(near.numbers, left_out)
        numbers, of = near.numbers[new], near.of[new]
        left_out = np.union1d(left_out, numbers)
        _tally_repeats(tallies[name], files, numbers, of, sums["kept_documents"])
    if pipeline.lines:
        left_out, contents[REPEATED] = _compare_lines(pipeline, files, left_out, tallies)
    contents[LEFT_OUT] = left_out.astype("<u8")
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


def _tallies(pipeline: Pipeline, records: Sequence[dict[str, Any]]) -> dict[str, Tally]:
    """What the steps did to all pieces."""
    tallies = pipeline.tallies()
    for record in records:
        for name, tally in record["steps"].items():
            tallies[name].include(tally)
    return tallies


def _written(path: Path, content: np.ndarray) -> str:
    with HashedFile(path) as file:
        file.write(content)
    return file.sha256


def _compare_lines(
    pipeline: Pipeline, files: Sequence[CleanFiles], left_out: np.ndarray, tallies: Mapping[str, Tally]
) -> tuple[np.ndarray, np.ndarray]:
    """The documents that are left out, now also for want of lines, and whether each line (l,) repeats an earlier one."""
    ((name, step),) = pipeline.lines.items()
    marks, tally = Marks(files, name), tallies[name]
    repeated = np.zeros(sum(map(len, marks)), bool)
    for numbers in step.repeated_lines(marks, left_out):
        repeated[numbers] = True
    without = _without_lines(marks, repeated)
    tally.documents = sum(len(file.digests()) for file in files) - len(left_out)
    if repeated.any():
        tally.remarks[REPEATED_LINES] = int(repeated.sum())
    if len(without):
        tally.dropped[NO_LINE] = len(without)
    shown = list(islice(_places(marks, repeated), EXAMPLES_KEPT))
    texts = documents_at(files, {number for number, _ in shown})
    for number, at in shown:
        tally.show(REPEATED_LINES, texts[number][0], texts[number][1].split("\n")[at])
    return np.union1d(left_out, without), repeated


def _by_piece(marks: Marks, repeated: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each piece with repeated lines: its first document, where documents start, marks and repeats (l,)."""
    document = line = 0
    for some in marks:
        starts, gone = np.flatnonzero(some & STARTS), repeated[line : line + len(some)]
        if gone.any():
            yield document, starts, some, gone
        document, line = document + len(starts), line + len(some)


def _without_lines(marks: Marks, repeated: np.ndarray) -> np.ndarray:
    """The documents that lose lines and keep none but those that always stay."""
    found = [np.zeros(0, np.int64)]
    for document, starts, some, gone in _by_piece(marks, repeated):
        stays = (some & ~STARTS != 0) & ~gone
        lose, keep = (np.logical_or.reduceat(lines, starts) for lines in (gone, stays))
        found.append(document + np.flatnonzero(lose & ~keep))
    return np.concatenate(found)


def _places(marks: Marks, repeated: np.ndarray) -> Iterator[tuple[int, int]]:
    """The document and the line in it of each repeated line."""
    for document, starts, _, gone in _by_piece(marks, repeated):
        for line in np.flatnonzero(gone).tolist():
            own = int(np.searchsorted(starts, line, side="right")) - 1
            yield document + own, line - int(starts[own])


def _tally_repeats(
    tally: Tally, files: Sequence[CleanFiles], numbers: np.ndarray, of: np.ndarray, documents: int
) -> None:
    tally.documents = documents
    if not len(numbers):
        return
    tally.dropped[NEAR] = len(numbers)
    wanted = {int(number) for number in (*numbers[:3], *of[:3])}
    texts = documents_at(files, wanted)
    for number, other in zip(numbers[:3].tolist(), of[:3].tolist(), strict=True):
        tally.show(NEAR, f"{texts[number][0]}, as {texts[other][0]}", texts[number][1], texts[other][1])
