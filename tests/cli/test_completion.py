"""Completion in the shells that it is for, as someone sees it who types and presses Tab."""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm.cli.completion import script
from llm.cli.main import VERBS

Complete = Callable[[str], str]
SECONDS = 30
# Ctrl-O shows the line, since what a shell echoes is full of its own escapes.
ZSH = """autoload -Uz compinit; compinit -u -D; unsetopt beep; source ./llm.zsh
show() { zle -I; print -r -- "<$BUFFER>"; BUFFER=; }; zle -N show; bindkey '^O' show; print 'READ''Y'
"""


def needed(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} isn't installed")
    return path


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where one types: a folder with two runs."""
    for name in ("demo", "mine"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return tmp_path


def read_until(terminal: int, pattern: str) -> str:
    """What a terminal shows until `pattern`, whose first group is returned."""
    shown, end = "", time.monotonic() + SECONDS
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
        if found := re.search(pattern, shown):
            return found[1]
    pytest.fail(f"no {pattern} within {SECONDS} s:\n{shown}")


@pytest.fixture
def zsh(folder: Path) -> Iterator[Complete]:
    """Gives the line that Tab makes of one, in a zsh on a terminal of its own."""
    program = needed("zsh")
    (folder / "llm.zsh").write_text(script(["zsh"], VERBS))
    (folder / "begin.zsh").write_text(ZSH)
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [program, "-f", "-i"],
        cwd=folder,
        env=environment(folder),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)

    def complete(line: str) -> str:
        os.write(ours, f"{line}\t\x0f".encode())
        return read_until(ours, "<(.*)>")

    try:
        os.write(ours, b"source ./begin.zsh\n")
        read_until(ours, "(READY)")
        yield complete
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_zsh(zsh: Complete) -> None:
    lines = {
        "llm tr": "llm train ",
        "llm train model=gpt_s": "llm train model=gpt_small ",
        "llm train experiment=demo optimizer.l": "llm train experiment=demo optimizer.lr=",
        "llm generate top": "llm generate top_",
        "llm generate run=runs/m": "llm generate run=runs/mine/",
        "llm completion z": "llm completion zsh ",
    }
    assert {line: zsh(line) for line in lines} == lines


@pytest.fixture
def fish(folder: Path) -> Complete:
    """Gives what fish offers for a line, parted by blanks."""
    program = needed("fish")
    (folder / "llm.fish").write_text(script(["fish"], VERBS))

    def complete(line: str) -> str:
        done = subprocess.run(
            [program, "--no-config", "-c", f"source llm.fish; complete -C '{line}'"],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert done.stderr == ""
        return " ".join(offer.partition("\t")[0] for offer in done.stdout.splitlines())

    return complete


def test_fish(fish: Complete) -> None:
    lines = {
        "llm tr": "train",
        "llm train model=gpt_s": "model=gpt_small",
        "llm train experiment=demo optimizer.l": "optimizer.lr=",
        "llm generate top": "top_k= top_p=",
        "llm generate run=runs/m": "run=runs/mine/",
        "llm completion ": "bash fish zsh",
    }
    assert {line: fish(line) for line in lines} == lines
