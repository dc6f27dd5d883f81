"""metrics.csv: one row a logged step, in full precision, whole after any kill."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from lightning.pytorch.utilities import rank_zero_only

from llm.errors import TrainingError
from llm.files import write_atomically
from llm.train.loggers.base import LoggedRun, RunLogger
from llm.train.rows import COLUMNS, EVALUATED, FILE, Row, column, line, number, read_metrics_rows


class MetricsCSV(RunLogger):
    """Writes metrics.csv, each row as soon as it is known.

    Figures of one step share a row whoever logs them and in whatever order: the last row is rewritten in place as
    long as its step lasts. When a run goes on from an earlier step, the rows after that step go first, and with
    them a line that a kill cut short. Figures of evaluations get columns of their own when they first come; others
    without a column are left out.
    """

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        self.path = run.folder / FILE
        sources = (run.config.get("data") or {}).get("sources") or {}
        self.columns = [*COLUMNS, *(column(split, name) for split in ("train", "val") for name in sources)]
        self._file: BinaryIO | None = None
        self._last: Row = {}
        self._last_start = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add figures to the row of `step`.

        Raises:
            TrainingError: the file can't be written.
        """
        known = {name: number(name, value) for name, value in metrics.items() if self._has_column(name)}
        if step is None or not known:
            return
        self._widen(list(known))
        file = self._file or self._open()
        if self._last.get("step") != str(step):
            self._last, self._last_start = {"step": str(step)}, file.seek(0, io.SEEK_END)
        self._last.update(known)
        try:
            file.seek(self._last_start)
            # One call, so that the row reaches the file whole or not at all.
            file.write(line(self._last, self.columns))
            file.truncate()
        except OSError as error:
            raise TrainingError(
                f"{self.path}: the figures of step {step} could not be written: {error.strerror}. Earlier rows and "
                "checkpoints stand. Make room there, then run the same command again."
            ) from error

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; a later row opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _widen(self, names: Sequence[str]) -> None:
        """Give new figures their columns; the file is written anew with them when it is next opened."""
        if new := [name for name in names if name not in self.columns]:
            self.columns += new
            self.finalize("widened")

    def _open(self) -> BinaryIO:
        rows = [row for row in read_metrics_rows(self.path) if int(row["step"]) <= self._kept_until()]
        found = [name for row in rows[-1:] for name in row if self._has_column(name)]
        self.columns = list(dict.fromkeys([*self.columns, *found]))
        header = {name: name for name in self.columns}
        lines = [line(row, self.columns) for row in (header, *rows)]
        write_atomically(self.path, b"".join(lines).decode())
        self._last = rows[-1] if rows else {}
        self._last_start = sum(map(len, lines[:-1]))
        self._file = self.path.open("r+b", buffering=0)
        return self._file

    def _kept_until(self) -> int:
        """The last step that stands: where the run went on from, or what this session has logged since."""
        return max(self.run.resume_step, int(self._last.get("step", 0)))

    def _has_column(self, name: str) -> bool:
        """Whether a figure is kept; an evaluation's is, unless its name would break the line."""
        return name in self.columns or (name.startswith(EVALUATED) and not set(name) & set(',"\r\n'))
