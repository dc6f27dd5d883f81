"""What tests share: a small corpus of real text, and the words for a run that takes a second."""

import functools
import gc
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from llm.malloc import CACHE, TUNABLES
from tests.browsing import chromium, pytest_terminal_summary  # noqa: F401  # pytest finds the hook by its name here
from tests.commands import changed
from tests.task_files import write_tasks
from tests.warm import ranks

# Another logger, a proxy or a tracker of the machine's owner must not leak into tests.
os.environ.setdefault("WANDB_MODE", "disabled")
# What train.py would start again for: a copy of the warm server would be an ordinary process then.
os.environ.setdefault(TUNABLES, f"{CACHE}=0")

# How long an example takes says more about what else the machine does.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

WARM = Path(__file__).parent / "warm"

TINY = (
    "data=text",
    "tokenizer=byte",
    "model.d_model=32",
    "model.n_layers=2",
    "model.n_heads=2",
    "model.n_kv_heads=1",
    "model.head_dim=16",
    "model.d_ff=64",
    "model.context_length=32",
    "data.batch_size=8",
    "data.micro_batch_size=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=4",
    "trainer.limit_val_batches=2",
    "samples.every_n_steps=null",
    "samples.max_new_tokens=8",
    "checkpoint.every_n_steps=4",
)


def pytest_collection_finish() -> None:
    """What was imported stays: runs that collect garbage need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Path:
    """A few of the standard library's files, as someone's folder of text."""
    folder = tmp_path_factory.mktemp("text")
    for name in ("this.py", "bisect.py", "heapq.py", "keyword.py"):
        text = (Path(sysconfig.get_paths()["stdlib"]) / name).read_text()
        (folder / name).with_suffix(".txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def unplanned() -> Iterator[None]:
    """Runs aren't planned beforehand, which takes longer than a tiny run; tests/jobs/test_beside_plan.py plans one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm.jobs.train.expected", lambda job, derived, step: {})
        yield


@pytest.fixture(scope="session")
def tiny_words(unplanned) -> tuple[str, ...]:
    """The overrides of a run that takes a second, but for its folders."""
    return TINY


@pytest.fixture(scope="session")
def tiny_in(unplanned, text_folder, tmp_path_factory) -> Callable[[Path], list[str]]:
    """The overrides of a run in `runs` of a folder that takes a second."""
    shards = tmp_path_factory.getbasetemp() / "shards"
    paths = [f"data.paths=[{text_folder}/*.txt]", f"shards_dir={shards}"]
    return lambda folder: [*TINY, *paths, f"runs_dir={folder}/runs"]


@pytest.fixture
def tiny(tiny_in, tmp_path) -> list[str]:
    """The same in `tmp_path`."""
    return tiny_in(tmp_path)


@pytest.fixture(scope="session")
def trained_once(tiny_in, tmp_path_factory) -> Callable[..., Path]:
    """Gives the folder of a tiny run that these overrides change, trained when it is first asked for."""
    from llm.cli.main import main

    @functools.cache
    def train(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("once")
        assert main(["train", *changed(tiny_in(folder), *overrides), "name=once"]) == 0
        return folder / "runs/once"

    return train


@pytest.fixture
def tiny_run(trained_once, tmp_path, capsys) -> Callable[..., Path]:
    """Gives a copy of such a run by its name in the test's own folder, so that nothing need be trained for it."""

    def copied(name: str, *overrides: str) -> Path:
        folder = shutil.copytree(trained_once(*overrides), tmp_path / "runs" / name)
        capsys.readouterr()
        return folder

    return copied


@pytest.fixture(scope="session")
def python() -> Iterator[str]:
    """A Python that has imported what training takes (tests/warm); off Linux, the plain one."""
    if sys.platform != "linux":
        yield sys.executable
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        address, program = f"{folder}/socket", Path(folder, "python")
        listener.bind(address)
        listener.listen(64)
        client = f'"{sys.executable}" -IS "{WARM}/client.py" "{address}" "{program}"'
        program.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
        program.chmod(0o755)
        server = subprocess.Popen(
            [sys.executable, WARM / "server.py", str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": str(WARM.parents[1]), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        listener.close()
        yield str(program)
        server.communicate()


@pytest.fixture(scope="session")
def spawn(python) -> Callable[..., None]:
    """Calls `function(rank, *arguments)` in `n` processes: spawn(function, arguments, n)."""
    return functools.partial(ranks.spawn, python)


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory) -> Path:
    """A folder with tasks of lm-evaluation-harness, made of nothing but files."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; a module's, since while it runs no other event loop can begin in this thread."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public text that some tests read, where there is one."""
    here = Path(__file__).parents[1]
    folder = Path(os.environ.get("LLM_SHARED_DATA", here.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: set LLM_SHARED_DATA to a folder with real data")
    return folder
