import json
import subprocess
import sys

import pytest

from llm.errors import CheckpointError
from llm.train.run import Run


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from llm.train.run import Run\n"
            f"run = Run(Path({str(tmp_path / 'mine')!r})); run.hold(); print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="Another process is training"):
            Run(tmp_path / "mine").hold()
    finally:
        holder.kill()
        holder.communicate()
    Run(tmp_path / "mine").hold()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a run folder"):
        Run(tmp_path).hold()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_opening_what_is_no_run_says_why(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no run\.json"):
        Run.open(tmp_path)


def test_set_aside_keeps_everything(tmp_path):
    run = Run(tmp_path / "mine")
    run.hold()
    run.update(id="first")
    assert run.set_aside() == tmp_path / "mine.old-1"
    assert not run.exists()
    assert Run.open(tmp_path / "mine.old-1").record == {"id": "first"}


def test_config_survives_writing(tmp_path):
    run = Run(tmp_path)
    config = {"name": "ünï: [x] = {y}", "n": 1, "lr": 1e-3, "none": None, "paths": ["a b/**/*.txt"]}
    run.write_config(config)
    assert run.config == config


def test_an_evaluation_is_replaced_by_its_repetition(tmp_path):
    run = Run(tmp_path)
    entry = {
        "evaluation": "perplexity",
        "data": "stdlib",
        "split": "validation",
        "checkpoint": "step_00000060",
    }
    run.append_evaluation([{**entry, "metrics": {"loss": 2.0}}])
    run.append_evaluation(
        [{**entry, "metrics": {"loss": 1.5}}, {**entry, "data": "other", "metrics": {"loss": 3.0}}]
    )

    found = json.loads(run.evaluation.read_text())
    assert [(e["data"], e["metrics"]["loss"]) for e in found] == [("stdlib", 1.5), ("other", 3.0)]


def test_a_folder_that_nothing_was_written_to_goes(tmp_path):
    run = Run(tmp_path / "mine")
    run.hold()
    run.release()
    assert not run.folder.exists()

    run.hold()
    run.update(id="x")
    run.release()
    assert run.exists()


@pytest.mark.parametrize(
    "text",
    [
        "&a {model: *a}",
        "a: &a [1]\nb: *a",
        "!!python/object/apply:os.getcwd []",
        "[" * 100_000,
        "- 1",
        "",
        "a: [",
        "\udcff",
    ],
    ids=range(8),
)
def test_a_config_that_no_run_wrote_is_damaged(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match=r"config\.yaml is damaged"):
        Run(tmp_path).config  # noqa: B018


def test_what_stands_twice_in_a_config_is_written_twice(tmp_path):
    run, twice = Run(tmp_path), {"a": [1]}
    run.write_config({"x": twice, "y": twice})
    assert run.config == {"x": {"a": [1]}, "y": {"a": [1]}}


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, "{", '{"id": 5}'], ids=range(6))
def test_a_record_that_no_run_wrote_is_damaged(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        Run(tmp_path).begun  # noqa: B018
