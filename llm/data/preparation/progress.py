"""How far a preparation is: the protocol that it reports to, and the bar that a person sees."""

from types import TracebackType
from typing import Protocol, Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class PrepareProgress(Protocol):
    """What `prepare` tells while it works."""

    def stage(self, name: str) -> None:
        """What begins now."""
        ...

    def update(self, documents: int, n_bytes: int, total_bytes: int | None) -> None:
        """Documents and bytes of text done so far, of `total_bytes` (None: unknown)."""
        ...

    def keeping(self, share: float) -> None:
        """The share of the text so far that is kept."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, name: str) -> None:
        """Says nothing."""

    def update(self, documents: int, n_bytes: int, total_bytes: int | None) -> None:
        """Says nothing."""

    def keeping(self, share: float) -> None:
        """Says nothing."""


class Bar:
    """A context manager with a bar on the terminal, which disappears when the work is done."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._bar = Progress(
            *columns,
            TextColumn("{task.fields[documents]}"),
            TextColumn("{task.fields[kept]}"),
            TimeRemainingColumn(),
            transient=True,
        )
        self._task = self._bar.add_task("Looking at the text", total=None, documents="", kept="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, name: str) -> None:
        """Name what begins now."""
        self._bar.update(self._task, description=name, kept="")

    def update(self, documents: int, n_bytes: int, total_bytes: int | None) -> None:
        """Move the bar."""
        self._bar.update(
            self._task, completed=n_bytes, total=total_bytes, documents=f"{documents:,} documents"
        )

    def keeping(self, share: float) -> None:
        """Show the share that is kept."""
        self._bar.update(self._task, kept=f"{share:.0%} kept")
