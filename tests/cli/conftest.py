"""Where commands are run from: a shell, in an empty folder, with the checkout's own Python."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a line in a real shell, in which `python`, `train` and `llm` stand for ours."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    prelude = (
        f'python() {{ {sys.executable!r} "$@"; }}; '
        f'train() {{ {sys.executable!r} {str(ROOT / "train.py")!r} "$@"; }}; '
        f'evaluate() {{ {sys.executable!r} {str(ROOT / "evaluate.py")!r} "$@"; }}; '
        f'llm() {{ {sys.executable!r} -m llm "$@"; }}; '
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", prelude + line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    return run
