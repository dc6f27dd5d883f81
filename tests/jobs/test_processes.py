"""Runs in processes of their own: two that train together, and ones that are told to stop."""

import csv
import os
import re
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from llm.train import checkpoint
from llm.train.run import Run
from tests.training import finish, start, wait_for_steps

pytestmark = pytest.mark.distributed


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    return [float(row["train/loss"]) for row in table], [
        float(row["val/loss"]) for row in table if row["val/loss"]
    ]


def weights(folder, step):
    return load_file(folder / f"checkpoints/step_{step:08d}/model.safetensors")


# What tests/jobs/test_strategies.py leaves out.
KINDS = {
    "gpt in a Python of its own": [],
    "gpt by muon": ["optimizer=muon"],
    "gpt within documents": ["task.collator.within_documents=true"],
    # The number of targets differs from pair to pair.
    "transformer": [
        "model=transformer_nano",
        "model.dropout=0",
        "task=seq2seq",
        "data=docstrings",
        "eval=[]",
    ],
}


# A sweep that is interrupted (tests/jobs/test_sweep.py) is in a Python of its own each time.
SLOW = ("gpt in a Python of its own", "gpt within documents")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS]
)
def test_two_processes_give_the_model_of_one(python, tiny, tmp_path, kind):
    if "of its own" in kind:
        python = sys.executable
    if "data=docstrings" in KINDS[kind]:
        tiny = [word for word in tiny if not word.startswith("data.paths=")]
    same = ["trainer.max_steps=20", "optimizer.lr=3e-4", *KINDS[kind]]
    finish(python, tiny, "name=one", *same)
    finish(python, tiny, "name=two", *same, "strategy=ddp", "trainer.devices=2")
    one, two = tmp_path / "runs/one", tmp_path / "runs/two"

    for first, second in zip(losses(one), losses(two), strict=True):
        assert first == pytest.approx(second, abs=2e-6)
    ours, theirs = weights(one, 20), weights(two, 20)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5
    n_bytes = sum(value.numel() * value.element_size() for value in theirs.values())
    assert Run.open(two).record["strategy"] == {
        "class": "DDPStrategy",
        "world_size": 2,
        "parameter_bytes_per_rank": n_bytes,
    }


ALONE = ("strategy=single", "trainer.devices=1")
TWO = {
    name: (f"strategy={name}", "trainer.devices=2")
    for name in ("ddp", "fsdp", "deepspeed_zero1", "deepspeed_zero3")
}


@pytest.mark.parametrize(
    ("layout", "signum", "code"),
    [
        (ALONE, signal.SIGINT, 130),
        (ALONE, signal.SIGTERM, 143),
        (TWO["ddp"], signal.SIGINT, 130),
        (TWO["fsdp"], signal.SIGTERM, 143),
        (TWO["deepspeed_zero1"], signal.SIGTERM, 143),
        pytest.param(TWO["ddp"], signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(TWO["deepspeed_zero3"], signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on(python, tiny, tmp_path, layout, signum, code):
    if "deepspeed" in layout[0]:
        pytest.importorskip("deepspeed")
    words = [
        "name=a",
        "trainer.max_steps=100000",
        "checkpoint.every_n_steps=100000",
        "trainer.val_check_interval=null",
        *layout,
    ]
    process = start(python, tiny, *words)
    wait_for_steps(tmp_path / "runs/a", process, 3)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    step = int(re.search(r"at step (\d+), saved", output).group(1))
    assert step >= 3
    assert checkpoint.verify(tmp_path / f"runs/a/checkpoints/step_{step:08d}")["step"] == step
    assert Run.open(tmp_path / "runs/a").record["status"] == "interrupted"

    words[1] = f"trainer.max_steps={step + 2}"
    assert f"Resuming from step {step}" in finish(python, tiny, *words)


def test_a_killed_run_loses_no_more_than_the_save_interval(python, tiny, tmp_path):
    words = ["name=a", "trainer.max_steps=100000", "model.dropout=0.1"]
    process = start(python, tiny, *words)
    wait_for_steps(tmp_path / "runs/a", process, 30)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    reached = len(losses(tmp_path / "runs/a")[0])

    out = finish(python, tiny, "name=a", f"trainer.max_steps={reached + 4}", "model.dropout=0.1")
    resumed = int(re.search(r"Resuming from step (\d+)", out).group(1))
    assert reached - 4 <= resumed <= reached
    assert len(losses(tmp_path / "runs/a")[0]) == reached + 4
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "runs/a", reached + 4).values())
