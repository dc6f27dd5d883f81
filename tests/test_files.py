"""What is made in parts appears whole or not at all."""

import os
import platform
import subprocess
import sys

import pytest
import safetensors.torch

from llm.files import beside, publish, staging, taken, write_tensors


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_published(tmp_path):
    with staging(tmp_path / "deep/out") as stage:
        (stage / "a").write_text("a")
        assert not (tmp_path / "deep/out").exists()
        publish(stage, tmp_path / "deep/out")
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep/out") == ["a"]


def test_what_fails_leaves_nothing(tmp_path):
    def fail():
        with staging(tmp_path / "out") as stage:
            (stage / "a").write_text("a")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == []


def test_one_file_can_be_published(tmp_path):
    with staging(tmp_path / "a.bin") as stage:
        (stage / "model.bin").write_text("a")
        publish(stage / "model.bin", tmp_path / "a.bin")
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("what", ["file", "full folder", "dangling link"])
def test_what_is_there_stays(tmp_path, what):
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    elif what == "full folder":
        out.mkdir()
        (out / "mine").touch()
    else:
        out.symlink_to(tmp_path / "nowhere")
    assert taken(out)
    with staging(out) as stage:
        (stage / "a").touch()
        with pytest.raises(FileExistsError):
            publish(stage, out)
    assert names(tmp_path) == ["out"]


def test_an_empty_folder_gives_way(tmp_path):
    (tmp_path / "out").mkdir()
    assert not taken(tmp_path / "out")
    with staging(tmp_path / "out") as stage:
        (stage / "a").touch()
        publish(stage, tmp_path / "out")
    assert names(tmp_path / "out") == ["a"]


def test_leftovers_of_ended_processes_go_and_those_of_others_stay(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    ).stdout.strip()
    here = platform.node()
    left = [
        f".out.{here}.{ended}.partial",
        f".out.{here}.{os.getppid()}.partial",
        f".out.{here}.b.{ended}.partial",
        f".out.elsewhere.{ended}.partial",
        f".other.{here}.{ended}.partial",
    ]
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").touch()
    with staging(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted(left[1:])


def test_the_same_process_id_on_two_machines_writes_to_two_places(tmp_path, monkeypatch):
    with staging(tmp_path / "out") as here:
        monkeypatch.setattr(platform, "node", lambda: "elsewhere")
        with staging(tmp_path / "out") as elsewhere:
            assert here != elsewhere
            assert len(names(tmp_path)) == 2


def test_tensors_are_written_where_no_other_machine_writes(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(safetensors.torch, "save_file", lambda _, path: (seen.append(path), path.touch()))
    write_tensors(tmp_path / "model.safetensors", {})
    assert seen == [beside(tmp_path / "model.safetensors")]
    assert names(tmp_path) == ["model.safetensors"]
