"""Answers of services that cost money, kept in a folder the moment they come, under the hash of what was asked."""

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llm.files import read_object, write_json

Answer = dict[str, Any]
T = TypeVar("T", bound=Hashable)
R = TypeVar("R")


@dataclass(frozen=True)
class Kept:
    """A folder of answers; None keeps nothing. What is asked must hold no secret: it is written beside the answer."""

    folder: Path | None

    def answer(self, asked: dict[str, Any], ask: Callable[[], Answer]) -> tuple[Answer, bool]:
        """The answer to what is asked, and whether it was kept; else `ask` gives it."""
        if self.folder is None:
            return ask(), False
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        path = self.folder / name[:2] / f"{name}.json"
        if (known := _read(path, asked)) is not None:
            return known, True
        answer = ask()
        write_json(path, {"asked": asked, "answer": answer})
        return answer, False


def _read(path: Path, asked: dict[str, Any]) -> Answer | None:
    """What is kept there, if it is an answer to this."""
    try:
        found = read_object(path)
    except (OSError, ValueError):
        return None
    answer = found.get("answer")
    return answer if found.get("asked") == asked and isinstance(answer, dict) else None


def in_parallel(ask: Callable[[T], R], wanted: Sequence[T], concurrency: int) -> dict[T, R]:
    """What `ask` gives of each that is wanted, so many at a time; after one that fails no other is begun."""
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            return dict(zip(wanted, pool.map(ask, wanted), strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
