"""T5 from scratch by the same commands: train, see spans restored, evaluate, restore a text."""

import json
import math

import pytest

from llm.cli.main import main
from tests.commands import changed


@pytest.fixture
def words(tiny):
    return [*tiny, "model=t5_nano", "task=span_corruption"]


def test_a_run_is_trained_scored_and_asked(words, tmp_path, capsys):
    shown = changed(words, "samples.every_n_steps=2", "samples.max_new_tokens=24")
    assert main(["train", *shown, "name=t", "trainer.max_steps=4"]) == 0
    folder = tmp_path / "runs/t"
    (entry,) = json.loads((folder / "evaluation.json").read_text())
    figures = entry["metrics"]
    assert set(figures) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    nats = figures["bits_per_byte"] * math.log(2) * figures["bytes"]
    assert nats == pytest.approx(figures["loss"] * figures["tokens"])
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert "<mask>" in sample["prompt"]
    assert "<mask>" not in sample["text"]
    capsys.readouterr()
    assert main(["evaluate", f"run={folder}"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    assert json.loads((folder / "evaluation.json").read_text())[-1]["metrics"] == figures
    assert main(["generate", f"run={folder}", "prompt=a <mask> b<mask>", "max_new_tokens=20"]) == 0
    assert "<mask>" not in capsys.readouterr().out
    assert main(["chat", f"run={folder}", f"out={tmp_path}/chats.jsonl"]) == 2
    assert "only a decoder chats, and this is encoder_decoder" in capsys.readouterr().err
    assert not (tmp_path / "chats.jsonl").exists()


@pytest.mark.parametrize("task", ["denoisers", "prefix_lm"])
def test_other_ways_to_hide_are_a_choice(words, task, tmp_path):
    assert main(["train", *words[:-1], f"task={task}", "name=d", "trainer.max_steps=2"]) == 0
    (entry,) = json.loads((tmp_path / "runs/d/evaluation.json").read_text())
    assert entry["metrics"]["tokens"] > 0
