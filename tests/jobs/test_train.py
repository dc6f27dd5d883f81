import csv
import errno
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llm.cli.main import main
from llm.data.collators import CausalCollator
from llm.train import checkpoint
from llm.train.checkpoint import writer
from llm.train.run import Run


def train(tiny, *overrides):
    given = {word.partition("=")[0] for word in overrides}
    return main(["train", *(word for word in tiny if word.partition("=")[0] not in given), *overrides])


def weights(folder, step):
    return load_file(folder / f"checkpoints/step_{step:08d}/model.safetensors")


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_run_leaves_all_that_it_promises(tiny, tmp_path, capsys):
    assert (
        train(tiny, "name=a", "trainer.max_steps=8", "samples.every_n_steps=4", "eval=[perplexity,code]") == 0
    )
    folder = tmp_path / "runs/a"
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "run.json", "tokenizer", "checkpoints", "metrics.csv", "samples.jsonl"} <= names
    assert {"results.json", "evaluation.json", "report.html"} <= names

    table = rows(folder)
    assert [int(row["step"]) for row in table] == list(range(1, 9))
    assert [bool(row["val/loss"]) for row in table] == [False, False, False, True] * 2
    assert float(table[-1]["train/loss"]) < float(table[0]["train/loss"])

    record = Run.open(folder).record
    assert record["status"] == "finished"
    assert record["derived"]["accumulation"] == 4
    results = json.loads((folder / "results.json").read_text())
    assert [entry["evaluation"] for entry in results] == ["perplexity", "code", "training"]
    assert results[0]["metrics"]["tokens"] > 0
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in samples} == {4, 8}

    out = capsys.readouterr().out
    assert str(folder / "report.html") in out
    assert "generate run=" in out


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tiny, tmp_path, capsys):
    dropout = "model.dropout=0.1"
    assert train(tiny, dropout, "name=whole", "trainer.max_steps=12") == 0
    # The first part is the same run stopped: its later checkpoints are taken away.
    shutil.copytree(tmp_path / "runs/whole", tmp_path / "runs/parted")
    for step in (8, 12):
        shutil.rmtree(tmp_path / f"runs/parted/checkpoints/step_{step:08d}", ignore_errors=True)
    shutil.copytree(
        tmp_path / "runs/whole/checkpoints/step_00000008", tmp_path / "runs/parted/checkpoints/step_00000008"
    )
    capsys.readouterr()

    assert train(tiny, dropout, "name=parted", "trainer.max_steps=12") == 0
    assert "Resuming from step 8" in capsys.readouterr().out
    assert_same(weights(tmp_path / "runs/whole", 12), weights(tmp_path / "runs/parted", 12))
    timing = ("tokens_per_second", "mfu", "data_wait")
    whole, parted = rows(tmp_path / "runs/whole"), rows(tmp_path / "runs/parted")
    assert [{k: v for k, v in row.items() if k not in timing} for row in parted] == [
        {k: v for k, v in row.items() if k not in timing} for row in whole
    ]
    assert [resume["step"] for resume in Run.open(tmp_path / "runs/parted").record["resumes"]] == [8]


def test_accumulation_does_not_change_the_model(tiny, tmp_path):
    assert train(tiny, "name=a", "trainer.max_steps=4", "optimizer.lr=3e-4") == 0
    assert train(tiny, "name=b", "trainer.max_steps=4", "optimizer.lr=3e-4", "data.micro_batch_size=8") == 0
    first, second = weights(tmp_path / "runs/a", 4), weights(tmp_path / "runs/b", 4)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6


def test_a_finished_run_says_so_and_shows_its_results_again(tiny, tmp_path, capsys):
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    before = (tmp_path / "runs/a/metrics.csv").read_bytes()
    capsys.readouterr()
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    out = capsys.readouterr().out
    assert "has done its 4 steps" in out
    assert "bits per byte" in out
    assert (tmp_path / "runs/a/metrics.csv").read_bytes() == before


def test_text_that_fills_no_window_is_refused_before_anything_is_written(tiny, tmp_path, capsys):
    assert train(tiny, "model.context_length=1000000", "name=s") == 1
    assert "fewer than one window of model.context_length=1000000" in capsys.readouterr().err
    assert not (tmp_path / "runs/s").exists()


def test_the_samples_of_what_is_trained_on_are_made_once(tiny, tmp_path, monkeypatch):
    made, seen = CausalCollator.samples, []
    monkeypatch.setattr(
        CausalCollator, "samples", lambda self, *how: (seen.append(how[0].name), made(self, *how))[1]
    )
    assert main(["train", *tiny, "name=o", "trainer.max_steps=1", "eval=[]"]) == 0
    assert seen.count("train") == 1


def test_a_longer_run_goes_on(tiny, tmp_path, capsys):
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    assert train(tiny, "name=a", "trainer.max_steps=6") == 0
    assert "trainer.max_steps: 4 -> 6" in capsys.readouterr().out
    assert [int(row["step"]) for row in rows(tmp_path / "runs/a")] == [1, 2, 3, 4, 5, 6]


def test_another_learning_rate_is_refused_and_nothing_is_lost(tiny, tmp_path, capsys):
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    before = Run.open(tmp_path / "runs/a").record
    assert train(tiny, "name=a", "trainer.max_steps=8", "optimizer.lr=0.5") == 2
    assert "allow_changes=true" in capsys.readouterr().err
    assert Run.open(tmp_path / "runs/a").record == before


def test_a_loss_that_is_not_finite_stops_before_the_update(tiny, tmp_path, capsys):
    explode = ("optimizer.lr=1e30", "schedule.warmup_steps=0", "trainer.gradient_clip_val=null")
    assert train(tiny, "name=a", "trainer.max_steps=8", *explode) == 1
    error = capsys.readouterr().err
    assert "is not finite" in error
    assert "Its samples: [" in error
    assert Run.open(tmp_path / "runs/a").record["status"] == "failed"


def test_a_full_disk_while_saving_stops_with_the_earlier_checkpoint_whole(
    tiny, tmp_path, capsys, monkeypatch
):
    save_file, calls = writer.save_file, []

    def full_at_the_second_save(tensors, path):
        calls.append(path)
        if "step_00000008" in str(path) and path.name == checkpoint.OPTIMIZER_FILE:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(writer, "save_file", full_at_the_second_save)
    assert train(tiny, "name=a", "trainer.max_steps=12") == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "step_00000004 is the newest" in error
    assert [path.name for path in (tmp_path / "runs/a/checkpoints").iterdir()] == ["step_00000004"]

    monkeypatch.undo()
    assert train(tiny, "name=a", "trainer.max_steps=12") == 0
    assert "Resuming from step 4" in capsys.readouterr().out


def test_a_kill_before_the_sum_up_is_made_good_by_the_same_command(tiny, tmp_path, capsys, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("llm.jobs.job.evaluations", killed)
    assert train(tiny, "name=a", "trainer.max_steps=4") == 130
    folder = tmp_path / "runs/a"
    assert not (folder / "results.json").exists()
    monkeypatch.undo()
    capsys.readouterr()

    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    assert "bits per byte" in capsys.readouterr().out
    assert (folder / "report.html").exists()
    record = Run.open(folder).record
    assert (record["status"], record["resumes"]) == ("finished", [])


def test_a_kill_while_removing_an_old_checkpoint_harms_nothing(tiny, tmp_path):
    assert train(tiny, "name=a", "trainer.max_steps=8") == 0
    half = tmp_path / "runs/a/checkpoints/step_00000002"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert train(tiny, "name=a", "trainer.max_steps=16") == 0
    assert not half.exists()


def test_a_kill_before_the_first_save_leaves_a_run_that_starts_anew(tiny, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "write_config", killed)
    assert train(tiny, "name=a", "trainer.max_steps=4") == 130
    monkeypatch.undo()
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0


def test_another_batch_size_goes_on_behind_the_samples_that_were_seen(tiny, tmp_path):
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    assert train(tiny, "name=a", "trainer.max_steps=6", "data.batch_size=16", "allow_changes=true") == 0
    manifest = checkpoint.verify(tmp_path / "runs/a/checkpoints/step_00000006")
    assert manifest["samples"] == 4 * 8 + 2 * 16


def test_resume_never_keeps_the_earlier_run_elsewhere(tiny, tmp_path, capsys):
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    assert train(tiny, "name=a", "trainer.max_steps=4", "resume=never") == 0
    assert "moved to" in capsys.readouterr().out
    assert_same(weights(tmp_path / "runs/a.old-1", 4), weights(tmp_path / "runs/a", 4))


def test_a_run_goes_on_when_its_text_is_gone(tiny, text_folder, tmp_path, capsys):
    mine = shutil.copytree(text_folder, tmp_path / "mine")
    words = ("name=a", f"data.paths=[{mine}/*.txt]")
    assert train(tiny, *words, "trainer.max_steps=4") == 0
    shutil.rmtree(mine)
    assert train(tiny, *words, "trainer.max_steps=6") == 0
    assert "Going on with the shards that the run began with" in capsys.readouterr().out


def test_a_run_that_started_from_another_goes_on_when_that_one_moved_on(tiny, tmp_path):
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    words = [word for word in tiny if not word.startswith(("model.", "tokenizer"))]
    start = [f"init_from={tmp_path}/runs/a", "name=b"]
    assert train(words, *start, "trainer.max_steps=2") == 0
    assert train(tiny, "name=a", "trainer.max_steps=6") == 0
    assert train(words, *start, "trainer.max_steps=4") == 0
    shutil.rmtree(tmp_path / "runs/a")
    assert train(words, *start, "trainer.max_steps=6") == 0


def test_the_time_limit_stops_and_says_so(tiny, tmp_path):
    # A long run on a CPU would be compiled.
    words = ("name=a", "trainer.max_steps=1000000", "trainer.max_time=00:00:00:03", "compile=false")
    assert train(tiny, *words) == 0
    record = Run.open(tmp_path / "runs/a").record
    assert record["status"] == "stopped"
    assert (tmp_path / "runs/a/results.json").exists()


def test_debug_overfit_learns_one_batch_by_heart(tiny, tmp_path):
    words = [word for word in tiny if not word.startswith(("data.batch_size", "trainer.val_check"))]
    # One window: two that begin alike could not both be known by heart.
    one = ("data.batch_size=1", "data.micro_batch_size=1")
    assert train(words, "name=a", "debug=overfit", "checkpoint.every_n_steps=1000", *one) == 0
    table = rows(tmp_path / "runs/a")
    assert float(table[0]["train/loss"]) > 5
    assert float(table[-1]["train/loss"]) < 0.05


def test_debug_fast_does_two_steps_of_everything(tiny, tmp_path):
    words = [word for word in tiny if not word.startswith(("trainer.", "checkpoint.", "samples."))]
    assert train(words, "name=a", "debug=fast") == 0
    assert [bool(row["val/loss"]) for row in rows(tmp_path / "runs/a")] == [True, True]
    assert (tmp_path / "runs/a/samples.jsonl").read_text().count("\n") >= 2


def test_init_from_brings_weights_and_tokenizer(tiny, tmp_path):
    assert train(tiny, "name=a", "trainer.max_steps=4") == 0
    start = [
        f"init_from={tmp_path}/runs/a",
        "name=b",
        "trainer.max_steps=1",
        "schedule.warmup_steps=0",
        "optimizer.lr=1e-9",
    ]
    assert train([word for word in tiny if not word.startswith(("model.", "tokenizer"))], *start) == 0
    first, second = weights(tmp_path / "runs/a", 4), weights(tmp_path / "runs/b", 1)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["data.batch_size=9"], 2, "data.micro_batch_size=2 does not divide"),
        (["trainer.max_steps=-1"], 2, "must say when training ends"),
        (["trainer.max_steps=0"], 2, "at least 1"),
        (["trainer.precision=16-mixed"], 2, "bf16-mixed"),
        (["trainer.max_time=1h"], 2, "DD:HH:MM:SS"),
        (["eval=[perplexty]"], 2, "no such evaluation"),
        (["seed=-1"], 2, "seed"),
        (["trainer.devices=2"], 2, "strategy=ddp"),
        (["model.n_kv_heads=3"], 2, "n_kv_heads"),
        (["model.context_length=100000"], 1, "shorten the context"),
        (["resume=must"], 1, "holds no checkpoint"),
        (["resume=nowhere"], 1, "is no checkpoint"),
    ],
)
def test_bad_commands_get_one_clear_message(tiny, tmp_path, capsys, words, code, message):
    assert train(tiny, "name=a", *words) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs/a/checkpoints").exists()


def test_nothing_is_prepared_for_a_run_that_cannot_go_on(tiny, tmp_path, capsys):
    assert train(tiny, "name=a", "resume=must", f"shards_dir={tmp_path}/shards") == 1
    assert "resume=must, but" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_same_compiled_run_twice_ends_with_the_same_weights(tiny, tmp_path):
    """Threads that add up an embedding's gradients as they come would make the runs differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    how = ["compile=true", "data.batch_size=32", "data.micro_batch_size=32", "model.d_model=64"]
    try:
        for name in "ab":
            assert train(tiny, f"name={name}", "trainer.max_steps=12", *how) == 0
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert_same(weights(tmp_path / "runs/a", 12), weights(tmp_path / "runs/b", 12))
