"""Sweeps as they run: a process a job, resumed as a whole, one table and one page at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm.cli.main import main
from llm.errors import ConfigError
from llm.jobs import sweep
from llm.jobs.sweep import Sweep, SweepJob
from llm.train.run import Run

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {"metric": "bits_per_byte", "goal": "minimize"}


def job(root, **values):
    name = "s/" + "-".join(f"{key}_{value}" for key, value in values.items())
    typed = {key: str(value) for key, value in values.items()}
    return SweepJob(typed, [name], {"runs_dir": str(root), "name": name, "resume": "auto", **values})


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Stands for training: a job writes what a run would; `seed=3` fails, `seed=4` is told to stop."""
    started = []

    def start(words):
        started.append(words[0])
        seed = int(words[0][-1])
        run = Run(tmp_path / words[0])
        run.update(status="finished", created="2026-01-01T00:00:00+00:00")
        run.write_config({"name": words[0], "seed": seed, "runs_dir": str(tmp_path), "resume": "auto"})
        run.metrics.write_text(f"step,tokens,train/loss\n1,10,{seed}\n2,20,{seed / 2}\n")
        metrics = {"bits_per_byte": seed / 4, "loss": 1.0}
        run.results.write_text(json.dumps([{"evaluation": "perplexity", "metrics": metrics}]))
        if seed in (3, 4):
            run.results.unlink()
        return {3: 1, 4: 143}.get(seed, 0)

    monkeypatch.setattr(sweep, "start", start)
    return started


def test_the_best_stands_first_and_what_finished_is_not_started_again(trained, tmp_path, capsys):
    jobs = [job(tmp_path, seed=seed) for seed in (2, 1)]
    for times in (1, 2):
        with Sweep(tmp_path / "s", SETTINGS, ["seed"]) as held:
            held.run_all(jobs)
            assert held.finish() == 0
        assert trained == ["s/seed_2", "s/seed_1"], times
    table = capsys.readouterr().out.rpartition("run  ")[2].splitlines()
    assert [line.split()[1:] for line in table[1:3]] == [["1", "finished", "0.25"], ["2", "finished", "0.5"]]
    record = json.loads((tmp_path / "s/sweep.json").read_text())
    assert [entry["bits_per_byte"] for entry in record["jobs"]] == [0.5, 0.25]
    assert "bits_per_byte by seed" in (tmp_path / "s/sweep.html").read_text()


def test_a_job_that_fails_does_not_keep_the_others(trained, tmp_path, capsys):
    with Sweep(tmp_path / "s", SETTINGS, ["seed"]) as held:
        held.run_all([job(tmp_path, seed=seed) for seed in (3, 1)])
        assert held.finish() == 1
    assert trained == ["s/seed_3", "s/seed_1"]
    assert "1 of 2 jobs failed" in capsys.readouterr().out


def test_a_signal_ends_the_sweep_and_the_same_command_goes_on(trained, tmp_path):
    with Sweep(tmp_path / "s", SETTINGS, ["seed"]) as held, pytest.raises(sweep.Stopped) as stopped:
        held.run_all([job(tmp_path, seed=seed) for seed in (1, 4, 2)])
    assert stopped.value.exit_code == 143
    statuses = [entry["status"] for entry in json.loads((tmp_path / "s/sweep.json").read_text())["jobs"]]
    assert statuses == ["finished", "interrupted", "waiting"]
    assert trained == ["s/seed_1", "s/seed_4"]


def test_a_changed_config_starts_the_job_again(trained, tmp_path):
    with Sweep(tmp_path / "s", SETTINGS, ["seed"]) as held:
        held.run(job(tmp_path, seed=1))
        changed = job(tmp_path, seed=1)
        held.run(SweepJob(changed.values, changed.words, {**changed.config, "trainer": {"max_steps": 9}}))
    assert trained == ["s/seed_1", "s/seed_1"]


@pytest.mark.parametrize("key", ["data", "tokenizer"])
def test_other_data_is_no_finished_job(trained, tmp_path, key):
    one = job(tmp_path, seed=1)
    with Sweep(tmp_path / "s", SETTINGS, ["seed"]) as held:
        held.run(one)
        held.run(one)
        assert trained == ["s/seed_1"]
        held.run(SweepJob(one.values, one.words, {**one.config, key: {"paths": ["elsewhere"]}}))
    assert trained == ["s/seed_1", "s/seed_1"]


def test_no_secret_is_written_or_shown(trained, tmp_path, capsys):
    secret = SweepJob({"logger.wandb.api_key": "c4n4ry"}, ["s/seed_1"], job(tmp_path, seed=1).config)
    with Sweep(tmp_path / "s", SETTINGS, ["logger.wandb.api_key"]) as held:
        held.run(secret)
        held.finish()
    written = [path.read_text() for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert written
    assert "c4n4ry" not in "".join([*written, *capsys.readouterr()])


@pytest.mark.parametrize(
    ("metric", "value"), [("train/loss", 0.5), ("perplexity/loss", 1.0), ("bits_per_byte", 0.25)]
)
def test_the_figure_that_jobs_are_judged_by(trained, tmp_path, metric, value):
    with Sweep(tmp_path / "s", SETTINGS | {"metric": metric}, ["seed"]) as held:
        assert held.run(job(tmp_path, seed=1)) == value


def test_a_figure_that_is_not_there(trained, tmp_path):
    with (
        Sweep(tmp_path / "s", SETTINGS | {"metric": "accuracy"}, ["seed"]) as held,
        pytest.raises(ConfigError, match="It has step"),
    ):
        held.run(job(tmp_path, seed=1))


def test_what_a_sweep_refuses(trained, tmp_path, monkeypatch):
    with Sweep(tmp_path / "s", SETTINGS, []), pytest.raises(sweep.CheckpointError, match="Another process"):
        Sweep(tmp_path / "s", SETTINGS, []).__enter__()
    Run(tmp_path / "r").update(status="finished")
    with pytest.raises(ConfigError, match="is a run"):
        Sweep(tmp_path / "r", SETTINGS, []).__enter__()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without a launcher"):
        Sweep(tmp_path / "s", SETTINGS, [])


@pytest.mark.distributed
def test_a_sweep_for_real(python, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", python)
    words = ["-m", *tiny, "trainer.max_steps=4", "optimizer.lr=1e-3,3e-3", "name=s"]
    assert main(["train", *words]) == 0
    folders = [tmp_path / "runs/s/lr_0.001", tmp_path / "runs/s/lr_0.003"]
    assert [Run.open(folder).record["status"] for folder in folders] == ["finished"] * 2
    assert [Run.open(folder).config["optimizer"]["lr"] for folder in folders] == [0.001, 0.003]
    assert "lr_0.003" in (tmp_path / "runs/s/sweep.html").read_text()


@pytest.mark.distributed
def test_two_processes_a_job(python, tiny, tmp_path):
    """Each job trains once, on two ranks: no rank starts the sweep anew."""
    words = ["-m", *tiny, "trainer.max_steps=4", "seed=1,2", "name=s", "strategy=ddp", "trainer.devices=2"]
    done = subprocess.run(
        [python, str(ROOT / "train.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^Job \d of 2", done.stdout, re.MULTILINE)) == 2
    for name in ("seed_1", "seed_2"):
        run = Run.open(tmp_path / "runs/s" / name)
        assert run.record["status"] == "finished"
        assert run.record["strategy"]["world_size"] == 2
        assert run.metrics.read_text().count("\n") == 5


@pytest.mark.distributed
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_saves_its_job_and_goes_on(python, tiny, tmp_path, signum, code):
    once = [word for word in tiny if not word.startswith("checkpoint.")]
    # A long run on a CPU would be compiled.
    words = ["-m", *once, "checkpoint.every_n_steps=100000", "compile=false", "seed=1,2", "name=s"]
    # In the warm one's place, no signal would reach the whole group.
    first = sys.executable if signum == signal.SIGINT else python
    process = subprocess.Popen(
        [first, str(ROOT / "train.py"), *words, "trainer.max_steps=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    metrics = tmp_path / "runs/s/seed_1/metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < 4:
        assert process.poll() is None, process.stdout.read()
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("no steps within two minutes")
        time.sleep(0.05)
    # A terminal's Ctrl-C reaches the whole group, a scheduler's SIGTERM the one process that it knows.
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    step = int(re.search(r"at step (\d+), saved", output).group(1))
    assert not (tmp_path / "runs/s/seed_2").exists()

    done = subprocess.run(
        [python, str(ROOT / "train.py"), *words, f"trainer.max_steps={step + 2}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Resuming from step {step}" in done.stdout
    assert Run.open(tmp_path / "runs/s/seed_2").record["status"] == "finished"
