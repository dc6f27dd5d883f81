"""The files that the work on one piece of a plan leaves behind, by its number, and the work on those that have none."""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm.data.executors.processes import Do, Job
from llm.data.preparation.progress import PrepareProgress
from llm.files import beside, sync

Record = dict[str, Any]


@dataclass(frozen=True)
class NumberedFiles:
    """Where the work on piece `number` lies: the record that vouches for the other files is written last."""

    folder: Path
    number: int

    def path(self, suffix: str) -> Path:
        """The file of a kind."""
        return self.folder / f"{self.number:06d}.{suffix}"

    @property
    def record(self) -> Path:
        """JSON: what was counted, and the SHA-256 of the other files."""
        return self.path("json")


def finished_records(
    job: Job, count: int, do: Do, n_bytes: int | None, progress: PrepareProgress
) -> list[Record]:
    """The records of all `count` pieces, those made by `job` that weren't finished before.

    `n_bytes` is how much text there is, where the source knows it.
    """
    done = {number: record for number in range(count) if (record := job.files(number).finished())}
    _tell(done.values(), count, n_bytes, progress)
    for number, record in do(job, [number for number in range(count) if number not in done], n_bytes):
        done[number] = record
        _tell(done.values(), count, n_bytes, progress)
    return [done[number] for number in range(count)]


def _tell(done: Collection[Record], count: int, n_bytes: int | None, progress: PrepareProgress) -> None:
    documents, so_far = (sum(record[key] for record in done) for key in ("documents", "bytes"))
    # Pieces are about alike, and a source may not know how much of what it reads is text.
    progress.update(documents, so_far, so_far * count // len(done) if so_far else n_bytes)
    kept = [record["kept_bytes"] for record in done if "kept_bytes" in record]
    if kept and so_far:
        progress.keeping(sum(kept) / so_far)


class HashedFile:
    """A new file that is hashed while it is written, and that takes its name when it is whole and synced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._neighbour = beside(path)
        self._digest = hashlib.sha256()
        self.sha256 = ""
        self.n_bytes = 0

    def __enter__(self) -> "HashedFile":
        self._file = self._neighbour.open("wb")
        return self

    def write(self, content: np.ndarray | bytes) -> None:
        """Append bytes, or an array's bytes."""
        data = content if isinstance(content, bytes) else content.tobytes()
        self._file.write(data)
        self._digest.update(data)
        self.n_bytes += len(data)

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._neighbour.replace(self._path)
                sync(self._path.parent)
                self.sha256 = self._digest.hexdigest()
        finally:
            self._file.close()
            self._neighbour.unlink(missing_ok=True)
