"""Files that are whole or absent: a write is to a neighbour, synced, and renamed into place."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_BYTES = 1 << 20


def sync(path: Path) -> None:
    """Push a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str) -> None:
    """Replace `path` by `content` so that a kill at any instant leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Read one safetensors file on the CPU; a ValueError where it isn't one. Nothing is ever unpickled."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        # On a header that is made to confuse it, safetensors raises more kinds of error than it documents.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def sha256(path: Path) -> str:
    """The hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
