"""What a run took, told beside what was planned."""

import json

import pytest

from llm.cli.main import main
from llm.jobs import train
from llm.train.run import Run

EXPECTED = train.expected


def test_a_run_tells_what_it_took_beside_what_was_planned(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "expected", EXPECTED)
    # However busy the machine is.
    monkeypatch.setattr("llm.jobs.beside_plan.PLANNING_SECONDS", 600)
    monkeypatch.setattr("llm.train.derive.peak_flops", lambda *_: 1e9)
    words = [*tiny, "name=a", "trainer.max_steps=2", "activation_checkpointing=1"]
    assert main(["train", *words]) == 0
    run = Run.open(tmp_path / "runs/a")
    metrics = json.loads(run.results.read_text())[-1]["metrics"]
    # Weights, gradients and two moments, in float32.
    assert metrics["planned_peak_bytes"] > 16 * run.record["parameters"]
    assert main(["plan", *words, f"out={tmp_path}/plan.json"]) == 0
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert metrics["planned_tokens_per_second"] == pytest.approx(planned["tokens_per_second"])
    speed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Speed:"))
    assert f"{metrics['planned_tokens_per_second']:,.0f}" in speed
