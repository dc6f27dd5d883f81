"""What a command line comes to, for the job that does it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Composed:
    """What a command line says.

    `config` in plain containers, every key present; `choices` group by group; `given_keys` are those of the command line.
    """

    config: dict[str, Any]
    choices: dict[str, Any]
    given_keys: frozenset[str] = frozenset()
