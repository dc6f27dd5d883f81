"""The conversations of `llm chat`: several side by side, and the file that keeps them, where one is named."""

import json
from pathlib import Path

from llm.errors import ConfigError, DataError
from llm.files import write_json_lines
from llm.generation.template import Turn

ROLES = ("system", "user", "assistant")


class Conversations:
    """Several conversations, of which one is open.

    The file has a line for each, in OpenAI's messages, as `data=chat` reads them.
    """

    def __init__(self, file: Path | None, system: str) -> None:
        """Read what `file` keeps, and begin another conversation with the instructions `system`.

        Raises:
            ConfigError: the file has no folder to stand in.
            DataError: it holds something else.
        """
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"out={file}: there is no folder {file.parent}.")
        self._file, self._system = file, system
        self._all = [] if file is None else _read(file)
        self.begin()

    @property
    def turns(self) -> list[Turn]:
        """Those of the open conversation, to be changed in place."""
        return self._all[self._open]

    @property
    def titles(self) -> list[tuple[bool, str]]:
        """Of each conversation whether it is the open one, and what was asked first."""
        return [(number == self._open, _title(turns)) for number, turns in enumerate(self._all)]

    def begin(self) -> None:
        """Open another one, which has the instructions alone."""
        self._all = [turns for turns in self._all if _title(turns)]
        self._all.append([("system", self._system)] if self._system else [])
        self._open = len(self._all) - 1

    def open(self, number: int) -> None:
        """Open the one of this number, counted from 1.

        Raises:
            ConfigError: there is none.
        """
        if not 1 <= number <= len(self._all):
            raise ConfigError(f"There is no conversation {number}; /chats lists those that there are.")
        self._open = number - 1

    def save(self) -> None:
        """Write the file, if there is one."""
        if self._file is not None:
            begun = [turns for turns in self._all if _title(turns)]
            messages = [[{"role": role, "content": text} for role, text in turns] for turns in begun]
            write_json_lines(self._file, [{"messages": one} for one in messages])


def _title(turns: list[Turn]) -> str:
    return next((text for role, text in turns if role == "user"), "")


def _read(file: Path) -> list[list[Turn]]:
    if not file.exists():
        return []
    found = []
    # Not splitlines: what a model writes can hold other line ends, which JSON leaves as they are.
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                found.append(
                    [(str(turn["role"]), str(turn["content"])) for turn in json.loads(line)["messages"]]
                )
            except (ValueError, KeyError, TypeError, RecursionError):
                raise DataError(f"out={file}: line {number} is no conversation; name another file.") from None
            if unknown := {role for role, _ in found[-1]} - {*ROLES}:
                raise DataError(f"out={file}: line {number} has the role {min(unknown)}, which is none here.")
    return found
