"""T5 from scratch by the same commands: train, go on, see spans restored, evaluate, restore a text."""

import json
import math

import pytest
import torch

from llm.cli.main import main
from llm.train import checkpoint


@pytest.fixture
def words(tiny):
    return [*tiny, "model=t5_nano", "task=span_corruption"]


def test_a_run_is_trained_scored_and_asked(words, tmp_path, capsys):
    shows = {"samples.every_n_steps": 2, "samples.max_new_tokens": 24}
    kept = [word for word in words if word.partition("=")[0] not in shows]
    changed = [f"{key}={value}" for key, value in shows.items()]
    assert main(["train", *kept, *changed, "name=t", "trainer.max_steps=4"]) == 0
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


def test_going_on_gives_the_weights_of_one_run(words, tmp_path):
    assert main(["train", *words, "name=whole", "trainer.max_steps=8", "schedule=inverse_sqrt"]) == 0
    parts = [*words, "name=parts", "schedule=inverse_sqrt"]
    assert main(["train", *parts, "trainer.max_steps=4"]) == 0
    assert main(["train", *parts, "trainer.max_steps=8"]) == 0
    whole, parted = (
        checkpoint.read_model(checkpoint.find(tmp_path / "runs" / name / "checkpoints", None))[1]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parted[name]) for name in whole)


@pytest.mark.parametrize("task", ["denoisers", "prefix_lm"])
def test_other_ways_to_hide_are_a_choice(words, task, tmp_path):
    assert main(["train", *words[:-1], f"task={task}", "name=d", "trainer.max_steps=2"]) == 0
    (entry,) = json.loads((tmp_path / "runs/d/evaluation.json").read_text())
    assert entry["metrics"]["tokens"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["task=masked_lm"], "task needs architecture=encoder: task=span_corruption trains"),
        (["task.sentinels=1"], "the tokenizer has 1 sentinels"),
        (["task.collator.denoisers=[{share: 2}]"], "at most 0.9"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(words, changes, message, tmp_path, capsys):
    replaced = {change.partition("=")[0] for change in changes}
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    assert main(["train", *kept, *changes, "name=x"]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs/x").exists()
