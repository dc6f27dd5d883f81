"""Pieces as tasks of datatrove: the shards of one process, what is finished kept, and Slurm's jobs waited for."""

import os
import stat
import sys
from pathlib import Path

import pytest
from test_clean import STEPS, text_of
from test_preparation import Watch, hashes

from llm.data import prepare
from llm.data.files import cutting
from llm.data.sources import TextFiles
from llm.data.steps import DuplicateLines
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec

pytest.importorskip("datatrove")
from llm.data.executors import datatrove as module

ALL_STEPS = {**STEPS, "lines": DuplicateLines()}


@pytest.fixture
def source(write, monkeypatch) -> TextFiles:
    """Text in several pieces, with what every kind of step finds."""
    monkeypatch.setattr(cutting, "MIN_PIECE_BYTES", 1 << 12)
    texts = {f"a{number:02d}.txt": f"{text_of(number, 100)}\nEvery page ends so" for number in range(40)}
    texts |= {f"b{number}.txt": f"{texts[f'a{number:02d}.txt']} and a bit" for number in range(3)}
    return TextFiles([f"{write(texts)}/*.txt"])


def in_one_process(source, tmp_path):
    return hashes(prepare(source, ByteSpec(), tmp_path / "alone", steps=ALL_STEPS, processes=1))


@pytest.mark.distributed
def test_the_shards_are_those_of_one_process(source, tmp_path) -> None:
    watch = Watch()
    how = {"executor": module.LocalTasks(tasks=5), "processes": 3, "progress": watch}
    corpus = prepare(source, ByteSpec(), tmp_path / "shards", steps=ALL_STEPS, **how)
    assert hashes(corpus) == in_one_process(source, tmp_path)
    assert len(watch.updates) > 10
    assert not list((tmp_path / "shards").rglob("tasks"))


@pytest.mark.distributed
def test_an_error_in_a_task_arrives_whole_and_pieces_are_kept(source, tmp_path, monkeypatch) -> None:
    class Broken(DuplicateLines):
        def marks(self, text):
            if "and a bit" in text and broken:
                raise DataError("this text breaks it")
            return super().marks(text)

    broken = [True]
    steps = {**STEPS, "lines": Broken()}
    how = {"executor": module.LocalTasks(), "processes": 1, "steps": steps}
    with pytest.raises(DataError, match="this text breaks it"):
        prepare(source, ByteSpec(), tmp_path / "shards", **how)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards/cleaned").glob("*/*.json")}
    assert kept
    broken.clear()
    corpus = prepare(source, ByteSpec(), tmp_path / "shards", **how)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert hashes(corpus) == hashes(prepare(source, ByteSpec(), tmp_path / "alone", steps=steps, processes=1))


class Halfway(module.LocalTasks):
    """Tasks of which half are lost, as when a machine goes."""

    late_seconds = 0.2

    def engine(self, task, count, workers, logs):
        class Engine:
            def run(self) -> None:
                for rank in range(0, count, 2):
                    task(None, rank, count)

        return Engine()


def test_tasks_that_end_without_their_pieces_are_told(source, tmp_path) -> None:
    with pytest.raises(DataError, match=r"Tasks ended with \d+ pieces undone; .*/tasks\. Finished pieces"):
        prepare(source, ByteSpec(), tmp_path / "shards", steps=ALL_STEPS, executor=Halfway())
    assert list((tmp_path / "shards/cleaned").glob("*/*.json"))
    corpus = prepare(source, ByteSpec(), tmp_path / "shards", steps=ALL_STEPS, processes=1)
    assert hashes(corpus) == in_one_process(source, tmp_path)


SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
assert "#SBATCH --wait" in script
last = int(re.search(r"--array=0-([0-9]+)", script)[1])
state = 0
for number in range(last + 1):
    there = {{"SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "here", "SLURM_JOB_ID": "1"}}
    clean = {{key: value for key, value in os.environ.items() if key in ("HOME", "TMPDIR")}}
    clean["PATH"] = os.path.dirname(os.path.abspath(__file__)) + ":/usr/bin:/bin"
    state |= subprocess.run(["bash", sys.argv[-1]], env=clean | there, cwd="/").returncode
print("Submitted batch job 1")
sys.exit(state)
"""
SRUN = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do [ "$1" = -n ] && shift; shift; done\nexec "$@"\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """What stands in for Slurm's commands: an array's jobs one after the other, in an environment of their own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "sbatch": SBATCH.format(python=sys.executable),
        "srun": SRUN,
        "scontrol": "#!/bin/sh\necho here\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.distributed
def test_jobs_of_slurm_give_the_shards_of_one_process(source, tmp_path, slurm) -> None:
    executor = module.SlurmTasks("cpu", tasks=2, sbatch={"account": "mine"})
    corpus = prepare(source, ByteSpec(), tmp_path / "shards", executor=executor)
    assert hashes(corpus) == hashes(prepare(source, ByteSpec(), tmp_path / "alone", processes=1))


def test_without_slurm_it_is_said(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="there is no sbatch"):
        module.SlurmTasks("cpu")
