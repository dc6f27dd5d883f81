"""Files wherever they lie: on this machine, or at any address that fsspec opens."""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple, cast

from llm.data.inputs import InputFiles, find_files
from llm.errors import ConfigError, DataError
from llm.redaction import redacted_text

# A name that ends so holds addresses, one a line, as Common Crawl's warc.paths.gz does.
LIST_ENDINGS = (".paths", ".paths.gz")


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
        DataError: it can't be opened any more.
    """
    try:
        if is_remote(address):
            return cast(BinaryIO, _fsspec().open(address, "rb").open())
        return open(address, "rb")
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{redacted_text(address)} can't be read any more: {error}.") from error


def _fsspec() -> Any:
    import fsspec

    return fsspec


def _remote_matches(pattern: str) -> list[str]:
    try:
        file_system, path = _fsspec().core.url_to_fs(pattern)
        found = file_system.glob(path) if "*" in path else [path] if file_system.isfile(path) else []
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"data.paths: {redacted_text(pattern)} can't be reached: {error}.") from error
    if not found:
        raise ConfigError(f"data.paths: there is no file at {redacted_text(pattern)}.")
    return [file_system.unstrip_protocol(match) for match in found]


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
    try:
        file_system, path = _fsspec().core.url_to_fs(address)
        info = file_system.info(path)
        identity = info.get("ETag") or file_system.ukey(path)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"data.paths: {redacted_text(address)} can't be reached: {error}.") from error
    return InputFile(address, info.get("size"), str(identity))
