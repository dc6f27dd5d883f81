"""Training commands of tests in processes of their own: run to their end, or begun to be told to stop."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def command(tiny, *overrides):
    """The arguments of Python that train by the words `tiny`, with `overrides` in place of those for the same keys."""
    # What is to be stopped is told to go on for long, and a long run on a CPU would be compiled.
    overrides = (*overrides, "compile=false")
    given = {word.partition("=")[0] for word in overrides}
    kept = [word for word in tiny if word.partition("=")[0] not in given]
    return [str(ROOT / "train.py"), *kept, *overrides]


def finish(python, tiny, *overrides):
    """What such a command says that ends well."""
    done = subprocess.run([python, *command(tiny, *overrides)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(python, tiny, *overrides):
    """A command that goes on for long, in a group of its own."""
    return subprocess.Popen(
        [python, *command(tiny, *overrides)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_steps(folder, process, n_steps):
    """Return once the run in `folder` has logged more than `n_steps` steps; the test fails where its process ends before."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        metrics = folder / "metrics.csv"
        if metrics.exists() and metrics.read_text().count("\n") > n_steps:
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("no steps within two minutes")
