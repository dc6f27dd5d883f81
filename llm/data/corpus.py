"""A prepared corpus on disk: two memory-mapped token streams, their documents, and the index that vouches for them.

Shapes: n windows or documents, t time.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from llm.errors import DataError
from llm.files import is_count, read_object, sha256, write_json

if TYPE_CHECKING:
    from llm.tokenizer import Tokenizer

FORMAT_VERSION = 1
INDEX = "index.json"
VERIFIED = ".verified.json"
STREAMS = ("train", "validation")
SCANNED_AT_ONCE = 1 << 24  # tokens


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id, little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def tokens_name(stream: str) -> str:
    """The file with the token ids of a stream."""
    return f"{stream}.tokens.bin"


def documents_name(stream: str) -> str:
    """The file with, for each document of a stream, the position of its first token, as uint64."""
    return f"{stream}.documents.bin"


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    """The file as an array, memory-mapped (which an empty file can't be)."""
    n_bytes = path.stat().st_size
    if n_bytes % dtype.itemsize:
        raise _damaged(path, f"its {n_bytes} bytes are no whole number of {dtype.name}")
    if n_bytes == 0:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


class TokenStream:
    """Documents end to end, each behind an end-of-text token, as one memory-mapped array of ids."""

    def __init__(self, folder: Path, stream: str, dtype: np.dtype, n_bytes: int) -> None:
        self._state = (folder, stream, dtype, n_bytes)
        self.name = stream
        self.n_bytes = n_bytes
        self.tokens = _map(folder / tokens_name(stream), dtype)
        self.documents = _map(folder / documents_name(stream), np.dtype("<u8"))
        self._windows: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple[type["TokenStream"], tuple[Any, ...]]:
        # A worker process maps the file itself: a pickled map would carry the whole corpus.
        return TokenStream, self._state

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        """How many documents begin in the stream."""
        return len(self.documents)

    @property
    def ends(self) -> np.ndarray:
        """The position behind each document's last token (n,), as uint64."""
        return np.append(self.documents[1:], np.uint64(len(self)))[: self.n_documents]

    def positions(self, token: int) -> np.ndarray:
        """Where a token stands (n,), int64, in order."""
        blocks = range(0, len(self), SCANNED_AT_ONCE)
        found = [
            first + np.flatnonzero(self.tokens[first : first + SCANNED_AT_ONCE] == token) for first in blocks
        ]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The ids (n, length), int64, that begin at the positions `starts` (n,); IndexError past the end."""
        if length not in self._windows:
            if length > len(self):
                raise IndexError(f"{length} tokens asked for of a stream of {len(self)}")
            self._windows[length] = sliding_window_view(self.tokens, length)
        return self._windows[length][starts].astype(np.int64)

    def read_padded(self, starts: np.ndarray, length: int, fill: int) -> np.ndarray:
        """As `read`, with `fill` past the end of the stream."""
        ids_nt = np.full((len(starts), length), fill, np.int64)
        for row, start in zip(ids_nt, starts, strict=True):
            part = self.tokens[start : start + length]
            row[: len(part)] = part
        return ids_nt


class Corpus:
    """A prepared corpus; `Corpus.open` is the way to one."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.index = index
        self.name: str = index["name"]
        self.fingerprint: str = index["fingerprint"]
        self.tokenizer_hash: str = index["tokenizer_hash"]
        self.vocab_size: int = index["vocab_size"]
        self.train, self.validation = (self._stream(stream) for stream in STREAMS)

    def _stream(self, stream: str) -> TokenStream:
        dtype = np.dtype(self.index["dtype"])
        return TokenStream(self.folder, stream, dtype, self.index["streams"][stream]["bytes"])

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = False) -> "Corpus":
        """Open and check a corpus: sizes always, SHA-256 of each file that changed since the last check.

        `verify=True` hashes every file. Raises DataError naming the file and the cure.
        """
        folder = Path(folder)
        index = _read_index(folder)
        checked = {} if verify else _checked_before(folder)
        states = dict(_file_states(folder, index, checked))
        corpus = cls(folder, index)
        if states != checked:
            corpus.check_content()
            # A corpus may lie on a disk that can only be read.
            with suppress(OSError):
                write_json(folder / VERIFIED, states)
        return corpus

    def check_content(self) -> None:
        """Raise DataError unless every id is in the vocabulary and every document begins in its stream, in order."""
        if not len(self.train) + len(self.validation):
            raise _damaged(self.folder / INDEX, "it vouches for no text")
        for name in STREAMS:
            stream: TokenStream = getattr(self, name)
            if len(stream) and stream.tokens.max() >= self.vocab_size:
                raise _damaged(self.folder / tokens_name(name), f"it has ids above {self.vocab_size - 1}")
            if (stream.documents > stream.ends).any():
                raise _damaged(self.folder / documents_name(name), "its documents are not in order")

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer that the corpus was made with."""
        from llm.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(self.folder / "tokenizer")
        self.require_tokenizer(tokenizer.hash)
        return tokenizer

    def require_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise DataError unless the corpus was made with the tokenizer of this hash."""
        if tokenizer_hash != self.tokenizer_hash:
            raise DataError(
                f"{self.folder} was made with another tokenizer ({self.tokenizer_hash[:12]}, not {tokenizer_hash[:12]}): "
                "its ids mean other text. Prepare the data with this tokenizer (llm prepare, or train again)."
            )

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token, end-of-text tokens counted, over both streams."""
        return (self.train.n_bytes + self.validation.n_bytes) / (len(self.train) + len(self.validation))

    @property
    def corpora(self) -> dict[str, "Corpus"]:
        """The corpora that it is made of, as a mixture has several."""
        return {self.name: self}

    def record(self) -> dict[str, Any]:
        """What `llm.data.mixture.open_text` opens it by again."""
        return {
            "name": self.name,
            "folder": str(self.folder.resolve()),
            "bytes_per_token": self.bytes_per_token,
        }

    @property
    def report(self) -> dict[str, Any]:
        """What the preparation found (see llm.data.preparation.report)."""
        return read_object(self.folder / "report.json")


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise DataError(
            f"{folder} is no prepared corpus: it has no {INDEX}. Prepare the data again; finished pieces are kept."
        )
    try:
        index = read_object(path)
    except ValueError as error:
        raise _damaged(path, error) from error
    if index.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{folder} has another format version than {FORMAT_VERSION}: delete it and prepare the data again."
        )
    if wrong := list(_misfits(index)):
        raise _damaged(path, f"it has no good {', '.join(wrong)}")
    return index


def _misfits(index: dict[str, Any]) -> Iterator[str]:
    """The keys of an index that are missing or not of their kind."""
    words = ("name", "fingerprint", "tokenizer_hash")
    yield from (key for key in words if not isinstance(index.get(key), str))
    size, streams, files = (index.get(key) for key in ("vocab_size", "streams", "files"))
    if not is_count(size) or size < 1:
        yield "vocab_size"
    # Any other type would be a way to have NumPy take the file's bytes for addresses.
    elif index.get("dtype") != token_dtype(size).str:
        yield "dtype"
    if not isinstance(streams, dict) or not all(_has_bytes(streams.get(name)) for name in STREAMS):
        yield "streams"
    if not isinstance(files, dict) or not all(map(_is_file, files.items())):
        yield "files"
    else:
        needed = [name(stream) for stream in STREAMS for name in (tokens_name, documents_name)]
        yield from (f"files (without {name})" for name in needed if name not in files)


def _has_bytes(stated: Any) -> bool:
    return isinstance(stated, dict) and is_count(stated.get("bytes"))


def _is_file(entry: tuple[str, Any]) -> bool:
    """Whether an entry of `files` has a size and a hash, and stays in the folder."""
    name, stated = entry
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    return inside and _has_bytes(stated) and isinstance(stated.get("sha256"), str)


def _damaged(path: Path, why: object) -> DataError:
    return DataError(f"{path} is damaged ({why}): delete {path.parent} and prepare the data again.")


def _checked_before(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / VERIFIED)
    except (OSError, ValueError):
        return {}


def _file_states(folder: Path, index: dict[str, Any], checked: dict[str, Any]) -> Iterator[tuple[str, list]]:
    for name, known in index["files"].items():
        path = folder / name
        cure = f"Delete {folder} and prepare the data again."
        if not path.is_file():
            raise DataError(f"{path} is missing. {cure}")
        status = path.stat()
        if status.st_size != known["bytes"]:
            raise DataError(
                f"{path} has {status.st_size} bytes instead of {known['bytes']}: it was cut or changed. {cure}"
            )
        state = [known["sha256"], status.st_mtime_ns]
        if checked.get(name) != state and sha256(path) != known["sha256"]:
            raise DataError(f"{path} is damaged: its SHA-256 is not the one in {INDEX}. {cure}")
        yield name, state
