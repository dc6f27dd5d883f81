"""Finished pieces to the two streams of a corpus: duplicates dropped, files hashed, ids counted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llm.data.corpus import STREAMS, documents_name, token_dtype, tokens_name
from llm.data.preparation.encode import ROW, PieceFiles
from llm.data.preparation.numbered import HashedFile
from llm.data.steps.repeats import HASHES_AT_ONCE, find_repeats

# Bound of memory: chunks copied at once.
ROWS_AT_ONCE = 1 << 12


@dataclass
class StreamCounts:
    """What went into a stream."""

    tokens: int = 0
    bytes: int = 0
    documents: int = 0


@dataclass
class Assembled:
    """What the streams hold: counts by stream, SHA-256 and size of each file, uses of each id, duplicates dropped."""

    id_counts: np.ndarray
    duplicates: int = 0
    streams: dict[str, StreamCounts] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


def _rows(piece: PieceFiles) -> np.ndarray:
    return np.fromfile(piece.rows, ROW)


def _may_be_duplicate(rows: np.ndarray) -> np.ndarray:
    return (rows["starts"] == 1) & (rows["digest"] != 0)


def find_duplicates(pieces: Sequence[PieceFiles], at_once: int = HASHES_AT_ONCE) -> np.ndarray:
    """Which documents repeat an earlier one, as sorted numbers counted over all pieces; bounded memory."""
    return find_repeats([partial(_candidates, piece) for piece in pieces], at_once)


def _candidates(piece: PieceFiles) -> np.ndarray:
    rows = _rows(piece)
    return rows["digest"][_may_be_duplicate(rows)]


def _kept(rows: np.ndarray, first: int, duplicates: np.ndarray) -> np.ndarray:
    """Which chunks stay, for a piece whose first candidate has the number `first`."""
    candidate, starts = _may_be_duplicate(rows), rows["starts"] == 1
    dropped = np.zeros(len(rows), bool)
    dropped[candidate] = np.isin(first + np.arange(candidate.sum()), duplicates)
    # A chunk shares the fate of the start before it; before the first start a document of an earlier piece goes on.
    fate = np.concatenate([[False], dropped[starts]])
    return ~fate[np.cumsum(starts)]


def assemble(folder: Path, pieces: Sequence[PieceFiles], vocab_size: int) -> Assembled:
    """Write the four files of the streams into `folder`."""
    duplicates = find_duplicates(pieces)
    result = Assembled(np.zeros(vocab_size, np.int64), len(duplicates))
    for held_out, stream in enumerate(STREAMS):
        result.streams[stream] = counts = StreamCounts()
        with (
            HashedFile(folder / tokens_name(stream)) as tokens,
            HashedFile(folder / documents_name(stream)) as documents,
        ):
            for rows, ids in _stretches(pieces, held_out, duplicates, token_dtype(vocab_size)):
                ends = counts.tokens + np.cumsum(rows["tokens"])
                documents.write((ends - rows["tokens"])[rows["starts"] == 1].astype("<u8"))
                tokens.write(ids)
                counts.tokens += len(ids)
                counts.bytes += int(rows["bytes"].sum())
                counts.documents += int(rows["starts"].sum())
                result.id_counts += np.bincount(ids, minlength=vocab_size)
        for name, file in ((tokens_name(stream), tokens), (documents_name(stream), documents)):
            result.files[name] = {"bytes": file.n_bytes, "sha256": file.sha256}
    return result


def _stretches(
    pieces: Sequence[PieceFiles], held_out: int, duplicates: np.ndarray, dtype: np.dtype
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows and the ids of a stream, some thousand chunks at a time."""
    first = 0
    for piece in pieces:
        rows = _rows(piece)
        wanted = _kept(rows, first, duplicates) & (rows["held_out"] == held_out)
        first += int(_may_be_duplicate(rows).sum())
        with piece.tokens.open("rb") as file:
            for low in range(0, len(rows), ROWS_AT_ONCE):
                some, keep = rows[low : low + ROWS_AT_ONCE], wanted[low : low + ROWS_AT_ONCE]
                ids = np.fromfile(file, dtype, int(some["tokens"].sum()))
                if keep.any():
                    yield some[keep], ids[np.repeat(keep, some["tokens"].astype(np.int64))]
