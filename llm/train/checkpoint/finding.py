"""Which checkpoints a run has: the newest good one, the best, and those that may go."""

from collections.abc import Callable, Iterator
from pathlib import Path

from llm.errors import CheckpointError
from llm.train.checkpoint.manifest import verify
from llm.train.checkpoint.writer import folder_name


def folders(root: Path) -> list[Path]:
    """The checkpoint folders under `root`, newest first."""
    return sorted(root.glob("step_" + "[0-9]" * 8), reverse=True)


def step_of(folder: Path) -> int:
    """The step that a checkpoint folder's name states."""
    return int(folder.name.removeprefix("step_"))


def newest(root: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies, or None; each damaged one passed over is said.

    Raises:
        CheckpointError: there are checkpoints and all are damaged.
    """
    found = folders(root)
    for folder in found:
        try:
            verify(folder)
            return folder
        except CheckpointError as error:
            say(f"Passing over a damaged checkpoint: {error}")
    if found:
        raise CheckpointError(
            f"All {len(found)} checkpoints in {root} are damaged. Use resume=never to start anew "
            "(the folder is moved aside, not deleted)."
        )
    return None


def find(root: Path, which: str | None) -> Path:
    """The checkpoint under `root` that `which` names, checked.

    Args:
        root: a run's checkpoints folder.
        which: `best` for the lowest validation loss, a step folder's name, a path, or None for the newest good one.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if which is None or which == "best":
        folder = newest(root, print)
        if folder is None:
            raise CheckpointError(f"{root} holds no checkpoint yet: the run has not reached its first save.")
        if which is None:
            return folder
        best = verify(folder)["best"]
        if best is None:
            raise CheckpointError(f"{root} has no best checkpoint: the run has not validated, or keeps none.")
        return find(root, folder_name(best["step"]))
    folder = root / which if (root / which).exists() else Path(which)
    verify(folder)
    return folder


def expendable(root: Path, keep_last: int, keep_every: int | None, best: int | None) -> Iterator[Path]:
    """The checkpoints that retention lets go: not among the last, the best, or every n-th step."""
    for folder in folders(root)[keep_last:]:
        step = step_of(folder)
        if step != best and not (keep_every and step % keep_every == 0):
            yield folder
