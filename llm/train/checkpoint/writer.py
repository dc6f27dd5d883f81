"""Checkpoints written and removed, whole or not at all."""

import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from llm.files import sha256, share, sync, write_json
from llm.train.checkpoint.manifest import FORMAT, MANIFEST, Manifest
from llm.train.tensors import write_shards


def folder_name(step: int) -> str:
    """The name of a step's folder."""
    return f"step_{step:08d}"


def rng_file(rank: int) -> str:
    """The name of a rank's random state."""
    return f"rng_{rank:05d}.safetensors"


class CheckpointWriter:
    """Writes one checkpoint: every rank its own files, rank 0 the shared ones and at last the manifest.

    Args:
        root: the run's checkpoints folder.
        step: the optimizer steps done.

    Call `write` (and `write_shards`) on each rank, then `publish` on rank 0 once every rank has written, or `discard`.
    """

    def __init__(self, root: Path, step: int) -> None:
        self.target = root / folder_name(step)
        self.folder = root / f".{folder_name(step)}.tmp"

    def write(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Write each named file of tensors and push it to the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in tensors.items():
            save_file(content, self.folder / name)
            share(self.folder / name)
            sync(self.folder / name)

    def write_shards(self, kinds: dict[str, dict[str, Tensor]]) -> None:
        """Write this rank's share of each kind of tensors, all ranks together; an OSError on one is one on all."""
        for kind, tensors in kinds.items():
            write_shards(self.folder, kind, tensors)
            sync(self.folder / kind)

    def publish(self, about: Manifest) -> Path:
        """Seal the folder with its manifest and give it its name."""
        files = {
            path.relative_to(self.folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        write_json(self.folder / MANIFEST, {"format": FORMAT, **about, "files": files})
        if self.target.exists():
            remove(self.target)
        self.folder.rename(self.target)
        sync(self.target.parent)
        return self.target

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a checkpoint so that a kill midway leaves nothing that looks like one."""
    going = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)
