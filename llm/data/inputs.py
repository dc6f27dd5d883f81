"""The user's files: found by pattern, read once for their hash and their flaws, and remembered until they change."""

import glob
import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from llm.data.cutting import BLOCK_BYTES
from llm.errors import ConfigError, DataError
from llm.files import read_json, write_json

OnBadFile = Literal["error", "skip"]
# A file that was written this recently may change again within one tick of its file system's clock.
SETTLED_SECONDS = 2.0


def check_on_bad_file(value: str) -> None:
    """Raise ConfigError unless `value` is one of the two ways."""
    if value not in get_args(OnBadFile):
        raise ConfigError(f"data.on_bad_file={value} is not one of {', '.join(get_args(OnBadFile))}.")


class FileFacts(NamedTuple):
    """A file's hex SHA-256, its size in bytes, and why it is no UTF-8 text (None: it is)."""

    sha256: str
    size: int
    flaw: str | None


class InputFiles:
    """Facts about files, kept in `record` between runs by path, size and time of change."""

    def __init__(self, record: Path | None = None) -> None:
        self._record = record
        self._known: dict[str, list] = _read_record(record)
        self._new: dict[str, list] = {}

    def facts(self, path: Path) -> FileFacts:
        """What is in the file, read only if it changed since the last time."""
        try:
            key, status = os.path.abspath(path), path.stat()
            seen = self._known.get(key)
            if seen and seen[:2] == [status.st_size, status.st_mtime_ns]:
                return FileFacts(seen[2], status.st_size, seen[3])
            facts = scan(path)
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
        if time.time() - status.st_mtime > SETTLED_SECONDS:
            self._known[key] = self._new[key] = [facts.size, status.st_mtime_ns, facts.sha256, facts.flaw]
        return facts

    def save(self) -> None:
        """Keep what was learnt; another process's findings in the same record stay."""
        if self._record and self._new:
            # Without the record the next run only takes longer.
            with suppress(OSError):
                write_json(self._record, _read_record(self._record) | self._new)
            self._new = {}


def _read_record(record: Path | None) -> dict[str, list]:
    try:
        return dict(read_json(record)) if record else {}
    except (OSError, ValueError):
        return {}


def scan(path: Path) -> FileFacts:
    """Read a file once, in bounded memory."""
    digest, size, flaw, torn = hashlib.sha256(), 0, None, b""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            if flaw is None:
                flaw, torn = _flaw(torn + block, size - len(torn))
            size += len(block)
    if flaw is None and torn:
        flaw = f"byte {size - len(torn)} is not UTF-8: the file ends inside a character"
    return FileFacts(digest.hexdigest(), size, flaw)


def _flaw(data: bytes, offset: int) -> tuple[str | None, bytes]:
    """Why the bytes, which start at `offset`, are no text, and the torn character at their end."""
    nul = data.find(b"\0")
    if nul >= 0:
        return f"byte {offset + nul} is NUL, so this is a binary file", b""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return None, data[error.start :]
        return f"byte {offset + error.start} (0x{data[error.start]:02x}) is not UTF-8", b""
    return None, b""


def find_files(paths: str | Sequence[str], key: str = "data.paths") -> list[Path]:
    """The files that the patterns match, each once, sorted.

    Raises ConfigError for no patterns, a pattern without a match, or a folder.
    """
    patterns = [paths] if isinstance(paths, str) else list(paths)
    if not patterns:
        raise ConfigError(f"{key} is empty: give files or patterns, such as '{key}=[my_folder/**/*.txt]'.")
    return sorted({path for pattern in patterns for path in _match(pattern, key)})


def _match(pattern: str, key: str) -> list[Path]:
    expanded = os.path.expanduser(pattern)
    if os.path.isdir(expanded):
        raise ConfigError(
            f"{key}: {pattern} is a folder; say which of its files, such as {pattern.rstrip('/')}/**/*.txt."
        )
    if os.path.exists(expanded):
        return [Path(expanded)]
    matches = [Path(match) for match in glob.glob(expanded, recursive=True) if os.path.isfile(match)]
    if not matches:
        raise ConfigError(f"{key}: no file matches {pattern!r} in the working directory {os.getcwd()}.")
    return matches
