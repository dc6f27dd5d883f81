"""A run at a glance, whatever its folder is like."""

import json

import pytest

from llm.report.summary import last_sample, run_folders, summarize
from llm.train.loggers import LoggedRun, MetricsCSV
from llm.train.run import Run

RECORD = {
    "status": "finished",
    "parameters": 1000,
    "created": "2025-01-02T03:04:05+00:00",
    "derived": {"max_steps": 20},
}


@pytest.fixture
def folder(tmp_path):
    run = Run(tmp_path / "a")
    run.update(**RECORD)
    log = MetricsCSV(LoggedRun(run.folder, "id", "a", {}))
    log.log_metrics({"tokens": 100, "train/loss": 3.0}, 10)
    log.log_metrics({"val/loss": 2.5, "val/bits_per_byte": 1.25}, 15)
    log.log_metrics({"tokens": 200, "train/loss": 2.0}, 20)
    run.samples.write_text(
        "".join(json.dumps({"step": step, "prompt": "p", "text": f"t{step}"}) + "\n" for step in (10, 20))
    )
    return run.folder


def test_all_that_is_known(folder):
    summary = summarize(folder)
    assert (summary.status, summary.step, summary.total_steps, summary.parameters) == (
        "finished",
        20,
        20,
        1000,
    )
    assert (summary.train_loss, summary.val_loss, summary.bits_per_byte) == (2.0, 2.5, 1.25)
    assert summary.sample == "pt20"
    assert summary.created.isoformat() == "2025-01-02T03:04:05+00:00"
    assert summary.trouble == []


def test_the_lock_tells_a_running_run_from_a_killed_one(folder):
    Run(folder).update(status="running")
    assert summarize(folder).status == "interrupted"
    run = Run(folder)
    run.hold()
    assert summarize(folder).status == "running"
    run.release()
    assert summarize(folder).status == "interrupted"


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted"])
def test_an_ended_run_is_what_it_says(folder, status):
    Run(folder).update(status=status)
    assert summarize(folder).status == status


# What a summary has of each file.
OF_FILE = {
    "run.json": {"status": "finished", "total_steps": 20, "parameters": 1000},
    "metrics.csv": {"step": 20, "train_loss": 2.0, "val_loss": 2.5},
    "samples.jsonl": {"sample": "pt20"},
    "config.yaml": {},
}


@pytest.mark.parametrize("name", OF_FILE)
@pytest.mark.parametrize("content", [None, b"", b"\x00{[\xff", b"[1]", b"{}", b'{"derived": 3}\n', b"null\n"])
def test_missing_and_damaged_files_do_no_harm_to_the_others(folder, name, content):
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    summary = vars(summarize(folder))
    for other, facts in OF_FILE.items():
        assert all((summary[key] == value) == (other != name) for key, value in facts.items()), other
    assert summary["trouble"] or name != "run.json"


def test_a_broken_run_says_what_is_wrong(folder):
    (folder / "run.json").write_text("{")
    summary = summarize(folder)
    assert summary.status == "broken"
    assert "run.json can't be read" in summary.trouble[0]
    (folder / "run.json").unlink()
    assert summarize(folder).trouble == ["it holds no run.json"]


def test_a_folder_in_a_files_place(folder):
    (folder / "samples.jsonl").unlink()
    (folder / "samples.jsonl").mkdir()
    assert "samples.jsonl can't be read" in summarize(folder).trouble[0]


def test_runs_are_found_at_any_depth_but_not_in_one_another(folder, tmp_path):
    Run(tmp_path / "group/b").update(status="finished")
    Run(folder / "checkpoints/inner").update(status="finished")
    (tmp_path / "broken/checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    Run(tmp_path / ".hidden/c").update(status="finished")
    assert [path.relative_to(tmp_path).as_posix() for path in run_folders(tmp_path)] == [
        "a",
        "broken",
        "group/b",
    ]


def test_a_torn_last_sample_is_passed_over(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"prompt": "a", "text": "\u2028b"}, ensure_ascii=False) + '\n{"prompt": "x')
    assert last_sample(path) == "a\u2028b"
