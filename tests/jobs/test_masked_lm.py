"""BERT from scratch by the same commands: train, see masks filled, evaluate, fill in a text."""

import json

import pytest

from llm.cli.main import main
from tests.commands import changed


@pytest.fixture
def words(tiny):
    return [*tiny, "model=bert_nano", "task=masked_lm"]


def test_a_run_is_trained_scored_and_asked(words, tmp_path, capsys):
    shown = changed(words, "samples.every_n_steps=2", "samples.max_new_tokens=24")
    assert main(["train", *shown, "name=b", "trainer.max_steps=4"]) == 0
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
    assert main(["generate", f"run={folder}", "prompt=a <mask> b<mask>", "top_k=3", "seed=1"]) == 0
    out, said = capsys.readouterr()
    assert said == "note: this text is read whole, and top_k, seed change nothing.\n"
    assert "<mask>" not in out
    assert out.startswith("a ")


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
