"""The user's files: found by pattern, read once for their hash and their flaws, and remembered until they change."""

import glob
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from llm.data.files.cutting import BLOCK_BYTES
from llm.errors import ConfigError, DataError

OnBadFile = Literal["error", "skip"]
# A file that was written this recently may change again within one tick of its file system's clock.
SETTLED_SECONDS = 2.0
ROWS_AT_ONCE = 10_000
LOOK_UP = "SELECT sha256, flaw FROM files WHERE path = ? AND size = ? AND changed_ns = ?"


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
    """Facts about files, kept between runs in the database `record` by path, size and time of change.

    Of the path only a hash is written: it may hold a name or a password.
    """

    def __init__(self, record: Path | None = None) -> None:
        self._record = _open_record(record)
        self._new: list[tuple[str, int, int, str, str | None]] = []

    def facts(self, path: str) -> FileFacts:
        """What is in the file, read only if it changed since the last time."""
        key = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()
        try:
            status = os.stat(path)
            known = self._known(key, status) or scan(path)
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
        if time.time() - status.st_mtime > SETTLED_SECONDS:
            self._new.append((key, known.size, status.st_mtime_ns, known.sha256, known.flaw))
        if len(self._new) >= ROWS_AT_ONCE:
            self.save()
        return known

    def _known(self, key: str, status: os.stat_result) -> FileFacts | None:
        with suppress(sqlite3.Error):
            state = (key, status.st_size, status.st_mtime_ns)
            if row := self._record.execute(LOOK_UP, state).fetchone():
                return FileFacts(row[0], status.st_size, row[1])
        return None

    def save(self) -> None:
        """Keep what was learnt. Where that can't be done, the next run only takes longer."""
        with suppress(sqlite3.Error), self._record:
            self._record.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", self._new)
        self._new = []


def _open_record(record: Path | None) -> sqlite3.Connection:
    """The database, or one in memory where none can be had: it only spares reading."""
    with suppress(sqlite3.Error, OSError):
        if record:
            record.parent.mkdir(parents=True, exist_ok=True)
            return _with_table(sqlite3.connect(record))
    return _with_table(sqlite3.connect(":memory:"))


def _with_table(database: sqlite3.Connection) -> sqlite3.Connection:
    with database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size, changed_ns, sha256, flaw)"
        )
    return database


def scan(path: str) -> FileFacts:
    """Read a file once, in bounded memory."""
    digest, size, flaw, torn = hashlib.sha256(), 0, None, b""
    with open(path, "rb") as file:
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


def find_files(paths: str | Sequence[str], key: str = "data.paths") -> list[str]:
    """The files that the patterns match, each once, sorted.

    Raises ConfigError for no patterns, a pattern without a match, or a folder.
    """
    patterns = [paths] if isinstance(paths, str) else list(paths)
    if not patterns:
        raise ConfigError(f"{key} is empty: give files or patterns, such as '{key}=[my_folder/**/*.txt]'.")
    return sorted({path for pattern in patterns for path in _match(pattern, key)})


def _match(pattern: str, key: str) -> Iterable[str]:
    expanded = os.path.expanduser(pattern)
    if os.path.isdir(expanded):
        raise ConfigError(
            f"{key}: {pattern} is a folder; say which of its files, such as {pattern.rstrip('/')}/**/*.txt."
        )
    if os.path.exists(expanded):
        return [os.path.normpath(expanded)]
    matches = {
        os.path.normpath(match) for match in glob.iglob(expanded, recursive=True) if os.path.isfile(match)
    }
    if not matches:
        raise ConfigError(f"{key}: no file matches {pattern!r} in the working directory {os.getcwd()}.")
    return matches
