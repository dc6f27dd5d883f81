"""`llm <command>`: find the command, run it, and turn what a person can mend into one message and an exit code."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from llm import __version__
from llm.cli.overrides import Words, split_words
from llm.config.words import nearest
from llm.errors import ConfigError, UserError
from llm.malloc import start_again_without_cache

VERBS = (
    "train",
    "evaluate",
    "generate",
    "chat",
    "serve",
    "export",
    "prepare",
    "convert",
    "merge",
    "plan",
    "runs",
    "doctor",
)
COMMANDS = (*VERBS, "completion")


def program(*verb: str) -> int:
    """What `llm`, train.py and evaluate.py do: run the words that the process was started with, behind `verb` if any."""
    words = [*verb, *sys.argv[1:]]
    if words[:1] == ["train"]:
        start_again_without_cache()
    return main(words)


def main(words: Sequence[str]) -> int:
    """Run a command line (without the program's name); returns the exit code."""
    # torch reads it at its first tensor. In huge pages, large tensors cost a five-hundredth of the page faults: 5 to 15%
    # of a training step on a CPU (benchmarks/throughput.md).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if os.getpid() == 1:
        # A container's first process isn't ended by a signal that nothing handles.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _run(words[0], list(words[1:])) if words else _overview()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" of {error.filename}" if error.filename else ""
        print(f"error: The disk{where} is full. Make room, then run the same command again.", file=sys.stderr)
        return UserError.exit_code


def _run(command: str, rest: list[str]) -> int:
    if command in ("help", "-h", "--help"):
        return _run(rest[0], ["--help"]) if rest else _overview()
    if command == "--version":
        return _say(f"llm {__version__}")
    if command == "completion":
        from llm.cli.completion import script

        return _say(script(rest, VERBS))
    if command in VERBS:
        return _verb(command, rest)
    guess = nearest(command, COMMANDS)
    hint = f" Did you mean llm {guess}?" if guess else ""
    raise ConfigError(f"{command}: there is no such command.{hint}\n  Commands: {', '.join(COMMANDS)}.")


def _verb(verb: str, rest: list[str]) -> int:
    """Run a verb, or what its flags ask for in place of running it."""
    words = split_words(rest)
    if "help" in words.flags:
        from llm.cli.help import page

        return _say(page(verb, words))
    if "multirun" in words.flags:
        return _sweep(verb, rest, words)
    if "cfg" in words.flags or "info" in words.flags:
        from llm.cli import show

        return _say(show.config(verb, rest, words) if "cfg" in words.flags else show.info(verb, rest, words))
    from llm.cli.compose import compose

    composed = compose(verb, rest)
    # llm/jobs/<verb>.py, loaded once the words are right: a mistake is told at once.
    code: int = importlib.import_module(f"llm.jobs.{verb}").run(composed)
    return code


def _sweep(verb: str, rest: list[str], words: Words) -> int:
    if verb != "train":
        raise ConfigError(f"-m: only llm train sweeps; llm {verb} runs once.")
    if "cfg" in words.flags or "info" in words.flags:
        raise ConfigError("-m: --cfg and --info show one job; leave -m out and give each key one value.")
    from llm.cli import sweep

    return sweep.run(rest)


def _overview() -> int:
    from llm.cli.help import overview

    return _say(overview(VERBS))


def _say(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # A pager or head that closed early is no failure; without this, Python complains again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(program())
