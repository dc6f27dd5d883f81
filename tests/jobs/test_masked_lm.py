"""BERT from scratch by the same commands: train, go on, see masks filled, evaluate, fill in a text."""

import json

import pytest
import torch

from llm.cli.main import main
from llm.train import checkpoint


@pytest.fixture
def words(tiny):
    return [*tiny, "model=bert_nano", "task=masked_lm"]


def test_a_run_is_trained_scored_and_asked(words, tmp_path, capsys):
    shows = {"samples.every_n_steps": 2, "samples.max_new_tokens": 24}
    kept = [word for word in words if word.partition("=")[0] not in shows]
    changed = [f"{key}={value}" for key, value in shows.items()]
    assert main(["train", *kept, *changed, "name=b", "trainer.max_steps=4"]) == 0
    folder = tmp_path / "runs/b"
    (entry,) = json.loads((folder / "evaluation.json").read_text())
    assert set(entry["metrics"]) == {"loss", "pseudo_perplexity", "masked_accuracy", "tokens"}
    rows = [
        json.loads(line)["scores"]["loss"] for line in (folder / entry["outputs"]).read_text().splitlines()
    ]
    assert sum(tokens for _, tokens in rows) == entry["metrics"]["tokens"]
    assert sum(nll for nll, _ in rows) / entry["metrics"]["tokens"] == pytest.approx(entry["metrics"]["loss"])
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert "<mask>" in json.dumps(sample)
    assert "prompt='for <mask> in'" in json.loads((folder / "results.json").read_text())[-1]["next"]
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    bits = header.index("train/bits_per_byte")
    assert all(row.split(",")[bits] == "" for row in rows)
    capsys.readouterr()
    assert main(["evaluate", f"run={folder}"]) == 0
    assert "masked accuracy" in capsys.readouterr().out
    assert main(["generate", f"run={folder}", "prompt=a <mask> b<mask>"]) == 0
    out = capsys.readouterr().out
    assert "<mask>" not in out
    assert out.startswith("a ")


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model=bert_nano", "task=causal_lm"], "task needs architecture=decoder: task=masked_lm trains"),
        (["model=gpt_nano"], "architecture=decoder, and the task needs architecture=encoder: task=causal_lm"),
        (["task.collator.share=1.5"], "share=1.5: it must be above 0 and below 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(words, changes, message, tmp_path, capsys):
    replaced = {change.partition("=")[0] for change in changes}
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    assert main(["train", *kept, *changes, "name=x"]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs/x").exists()


@pytest.mark.parametrize("windows", [1, 16])
def test_windows_in_which_nothing_is_hidden_are_not_shown(words, tmp_path, monkeypatch, windows):
    monkeypatch.setattr("llm.jobs.samples.LOOKED_AT", windows)
    kept = [word for word in words if not word.startswith("samples.max_new_tokens")]
    assert main(["train", *kept, "samples.max_new_tokens=1", "eval=[]", "name=b", "trainer.max_steps=1"]) == 0
    sample = json.loads((tmp_path / "runs/b/results.json").read_text())[-1]["sample"]
    assert bool(sample) == (windows == 16)


def test_an_encoder_is_asked_with_masks_alone(words, tmp_path, capsys):
    assert main(["train", *words, "name=b", "trainer.max_steps=1"]) == 0
    assert main(["generate", f"run={tmp_path}/runs/b", "prompt=def "]) != 0
    assert "put <mask> into it" in capsys.readouterr().err
    assert main(["evaluate", f"run={tmp_path}/runs/b", "eval=code"]) != 0
    assert "only a decoder writes documents" in capsys.readouterr().err
