"""`llm <verb>`: find the verb, run it, and turn errors that a person can mend into one message and an exit code."""

import importlib
import sys
from collections.abc import Sequence

from llm.config.words import nearest
from llm.errors import ConfigError, UserError

VERBS = {
    "train": "train a language model, or go on with one",
    "evaluate": "score a run on held-out text",
    "generate": "write text with a run",
    "prepare": "make shards of a corpus",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name); returns the exit code."""
    verb, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    try:
        return _run(verb, rest[:-1])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _run(verb: str, rest: list[str]) -> int:
    if verb not in VERBS:
        guess = nearest(verb, VERBS)
        hint = f" Did you mean llm {guess}?" if guess else ""
        raise ConfigError(f"{verb}: there is no such command.{hint}\n  Commands are {', '.join(VERBS)}.")
    module = importlib.import_module(f"llm.cli.{verb}")
    code: int = module.run(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
