"""The files that the work on one piece of a plan leaves behind, by its number."""

from dataclasses import dataclass
from pathlib import Path


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
