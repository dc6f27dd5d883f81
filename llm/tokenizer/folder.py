"""The folder of a tokenizer: its files, and one description that holds the hash of all that sets ids."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm.errors import DataError
from llm.files import read_json, sync, write_json

DESCRIPTION = "tokenizer_hash.json"
FORMAT = 1
MAX_IDS = 1 << 24  # far above every vocabulary's


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in its canonical spelling."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def description(
    kind: str, files: Mapping[str, bytes], special_tokens: Mapping[str, int], end_of_text: int
) -> dict[str, Any]:
    """What is written beside the files; `hash` covers everything else in it."""
    content = {
        "format": FORMAT,
        "kind": kind,
        "special_tokens": dict(special_tokens),
        "end_of_text": end_of_text,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    return content | {"hash": digest(content)}


def save(
    path: Path, kind: str, files: Mapping[str, bytes], special_tokens: Mapping[str, int], end_of_text: int
) -> None:
    """Write the files and, last, their description: a folder without it is no tokenizer."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
        sync(path / name)
    write_json(path / DESCRIPTION, description(kind, files, special_tokens, end_of_text))


def read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The description and the files of a folder; DataError where anything is missing or altered."""
    path = Path(path)
    found = _read_description(path / DESCRIPTION)
    files = {name: _read_file(path / name, expected) for name, expected in found["files"].items()}
    expected = description(found["kind"], files, found["special_tokens"], found["end_of_text"])
    if found != expected:
        raise _damaged(path / DESCRIPTION, "does not match the hash that it holds")
    return found, files


def _read_description(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except OSError as error:
        why = "it has no" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
        raise DataError(f"{path.parent} holds no tokenizer: {why} {DESCRIPTION}.") from error
    except ValueError as error:
        raise _damaged(path, "is not JSON") from error
    keys = description("", {}, {}, 0).keys()
    if not isinstance(found, dict) or found.keys() != keys or not _fits(found):
        raise _damaged(path, f"must hold {', '.join(keys)}")
    # A name with a slash could read outside the folder.
    if any(Path(name).name != name for name in found["files"]):
        raise _damaged(path, "names a file that is not in its folder")
    if found["format"] != FORMAT:
        raise DataError(f"{path} has format {found['format']}; this version reads format {FORMAT}.")
    return found


def _fits(found: dict[str, Any]) -> bool:
    specials = found["special_tokens"]
    ids = [found["end_of_text"], *specials.values()] if isinstance(specials, dict) else [None]
    return isinstance(found["files"], dict) and all(type(id_) is int and 0 <= id_ < MAX_IDS for id_ in ids)


def _read_file(path: Path, expected: str) -> bytes:
    if not path.is_file():
        raise _damaged(path, "is missing")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise _damaged(path, "does not have the SHA-256 that was saved with it")
    return data


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"The tokenizer is damaged: {path} {what}. Copy the folder again from a run or shards that hold the "
        "same tokenizer, or delete it and prepare anew."
    )
