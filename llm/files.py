"""Files that are whole or absent: a write is to a neighbour, synced, and renamed into place."""

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_BYTES = 1 << 20
LARGEST_COUNT = 1 << 53  # beyond it, floats count no more


def sync(path: Path) -> None:
    """Push a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside(path: Path, suffix: str = "tmp") -> Path:
    """Where this process writes what becomes `path`: no other does, on any machine that shares the folder."""
    return path.with_name(f"{_beside_here(path)}{os.getpid()}.{suffix}")


def _beside_here(path: Path) -> str:
    """How the names begin that processes of this machine give to what becomes `path`; their ids follow."""
    return f".{path.name}.{platform.node()}."


def write_atomically(path: Path, content: str) -> None:
    """Replace `path` by `content` so that a kill at any instant leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = beside(path)
    try:
        with neighbour.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write each of `values` as a line of JSON, atomically; what JSON has no word for is written as text."""
    lines = (json.dumps(value, ensure_ascii=False, default=str) + "\n" for value in values)
    write_atomically(path, "".join(lines))


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to make it in; afterwards it is gone with all that was not published from it.

    So are those that processes of this machine left which were killed meanwhile; which of another's run, nobody here knows.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = _beside_here(path)
    for leftover in path.parent.glob(f"{glob.escape(ours)}*.partial"):
        pid = leftover.name.removeprefix(ours).removesuffix(".partial")
        if pid.isdecimal() and not _runs(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = beside(path, "partial")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def taken(path: Path) -> bool:
    """Whether something stands at `path`; an empty folder gives way."""
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


def publish(made: Path, path: Path) -> None:
    """Let a finished file or folder stand at `path`, all of it on the disk before its name is; an OSError if taken."""
    if taken(path):
        raise FileExistsError(errno.EEXIST, "something is there already", str(path))
    for entry in (*made.rglob("*"), made):
        sync(entry)
    made.rename(path)
    sync(path.absolute().parent)


def read_json(path: Path) -> Any:
    """Parse a JSON file; a ValueError where it isn't one, or is nested deeper than anything written here."""
    if os.path.lexists(path) and not path.is_file():
        raise ValueError("it is no file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file that holds an object; a ValueError where it doesn't."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    return value


def is_count(value: Any) -> TypeGuard[int]:
    """Whether what stands in a JSON file is a number of things, which `true` isn't."""
    return type(value) is int and 0 <= value < LARGEST_COUNT


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Read one safetensors file on the CPU; a ValueError where it isn't one. Nothing is ever unpickled."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        # On a header that is made to confuse it, safetensors raises more kinds of error than it documents.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def share(path: Path) -> None:
    """Give a file the bits of its folder for reading and writing: safetensors makes its files for their owner alone."""
    path.chmod(path.parent.stat().st_mode & 0o666)


def write_tensors(path: Path, tensors: "dict[str, Tensor]") -> None:
    """Write one safetensors file, atomically."""
    from safetensors.torch import save_file

    neighbour = beside(path)
    try:
        save_file(tensors, neighbour)
        share(neighbour)
        sync(neighbour)
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)
    sync(path.parent)


def sha256(path: Path) -> str:
    """The hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
