"""Files wherever they lie: on this machine, or at any address that fsspec opens."""

import gzip
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

from llm.data.files.inputs import InputFiles, find_files
from llm.errors import ConfigError, DataError
from llm.redaction import redacted_text

# A name that ends so holds addresses, one a line, as Common Crawl's warc.paths.gz does.
LIST_ENDINGS = (".paths", ".paths.gz")
NOT_FOUND = 404
# Seconds before a read from elsewhere is tried again.
PAUSES = (1.0, 5.0)


class InputFile(NamedTuple):
    """A file to read: its address, its size in bytes (None: nobody says), and what its contents are known by."""

    address: str
    size: int | None
    identity: str


def is_remote(address: str) -> bool:
    """Whether an address is one for fsspec."""
    return "://" in address


def find_inputs(paths: str | Sequence[str], files: InputFiles, base: str = "") -> list[InputFile]:
    """The files at the patterns and addresses `paths`, and in the lists among them, each once, sorted.

    A relative line of a list is looked for behind `base`. What a local file holds is known by its SHA-256, a
    remote one by what its store says of it (an ETag, or size and time).

    Raises:
        ConfigError: nothing is there, or an address can't be reached.
    """
    given = [paths] if isinstance(paths, str) else list(paths)
    remote = [address for address in given if is_remote(address)]
    local = find_files([path for path in given if not is_remote(path)]) if len(remote) < len(given) else []
    found = {*local, *(match for pattern in remote for match in _remote_matches(pattern))}
    lists = {address for address in found if address.endswith(LIST_ENDINGS)}
    listed = {line for address in lists for line in _listed(address, base)}
    inputs = [_describe(address, files) for address in sorted(found - lists | listed)]
    files.save()
    if not inputs:
        raise ConfigError(f"data.paths={given}: these lists name no file.")
    return inputs


def open_address(address: str) -> BinaryIO:
    """The file, to be read from its beginning.

    Raises:
        DataError: it can't be opened any more, now or when it is read.
    """
    try:
        if is_remote(address):
            return cast(BinaryIO, RemoteFile(address))
        return open(address, "rb")
    except OSError as error:
        raise _unreadable(address, error) from error


class RemoteFile:
    """A file at an address of fsspec, as it is but that a read which fails is tried again, and ends in a DataError.

    So what the network loses is never taken for the end of a file, nor for damage in it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._file = self._tried(lambda: _fsspec().open(address, "rb").open())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (-1: all) from here on."""
        place = self._file.tell()

        def read() -> bytes:
            if self._file.tell() != place:
                self._file.seek(place)
            return self._file.read(size)

        return self._tried(read)

    def _tried(self, call: Callable[[], Any]) -> Any:
        for pause in PAUSES:
            try:
                return call()
            except Exception:  # each store has errors of its own
                time.sleep(pause)
        try:
            return call()
        except Exception as error:
            raise _unreadable(self._address, error) from error


def _unreadable(address: str, error: Exception) -> DataError:
    told = str(error) or type(error).__name__
    return DataError(
        f"{redacted_text(address)} can't be read any more: {redacted_text(told).rstrip('.')}. Finished pieces are kept: "
        "the same command goes on from them."
    )


def _fsspec() -> Any:
    import fsspec

    return fsspec


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turn a store's errors, which are of its own kinds, into one that names the address, or what to install."""
    try:
        yield
    except ImportError as error:
        protocol = address.partition("://")[0].partition("::")[0].replace("https", "http")
        raise ConfigError(
            f"data.paths: {redacted_text(address)} needs a package that isn't installed ({error}): "
            f"pip install 'fsspec[{protocol}]'."
        ) from error
    except Exception as error:
        told = redacted_text(str(error) or type(error).__name__).rstrip(".")
        raise ConfigError(f"data.paths: {redacted_text(address)} can't be reached: {told}.") from error


def _remote_matches(pattern: str) -> list[str]:
    with _reaching(pattern):
        file_system, path = _fsspec().core.url_to_fs(pattern)
        found = file_system.glob(path) if "*" in path else _one(file_system, path)
    if not found:
        raise ConfigError(f"data.paths: there is no file at {redacted_text(pattern)}.")
    return [file_system.unstrip_protocol(match) for match in found]


def _one(file_system: Any, path: str) -> list[str]:
    """The file at a path, if there is one; what keeps a store from saying so is an error."""
    try:
        return [path] if file_system.info(path)["type"] == "file" else []
    except FileNotFoundError as error:
        if error.__cause__ is None or getattr(error.__cause__, "status", None) == NOT_FOUND:
            return []
        raise error.__cause__ from None


def _listed(address: str, base: str) -> Iterator[str]:
    with closing(open_address(address)) as file:
        data = file.read()
    text = gzip.decompress(data) if address.endswith(".gz") else data
    for line in filter(None, map(str.strip, text.decode("utf-8").splitlines())):
        yield line if is_remote(line) or line.startswith("/") else base + line


def _describe(address: str, files: InputFiles) -> InputFile:
    if not is_remote(address):
        facts = files.facts(address)
        return InputFile(address, facts.size, facts.sha256)
    with _reaching(address):
        file_system, path = _fsspec().core.url_to_fs(address)
        info = file_system.info(path)
        identity = info.get("ETag") or file_system.ukey(path)
    return InputFile(address, info.get("size"), str(identity))
