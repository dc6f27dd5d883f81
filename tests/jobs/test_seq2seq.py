"""The Transformer of 2017 by the same commands: train on pairs, see targets written, evaluate, ask."""

import json

import pytest

from llm.cli.main import main
from tests.commands import changed, on_pairs


@pytest.fixture
def words(tiny, tmp_path):
    return changed(on_pairs(tiny, tmp_path), "model=transformer_nano", "task=seq2seq")


def test_a_run_is_trained_scored_and_asked(words, tmp_path, capsys):
    shown = changed(words, "samples.every_n_steps=2")
    assert main(["train", *shown, "name=s", "trainer.max_steps=4"]) == 0
    folder = tmp_path / "runs/s"
    likelihood, pairs = json.loads((folder / "evaluation.json").read_text())
    assert set(likelihood["metrics"]) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    assert set(pairs["metrics"]) == {"exact_match", "chrf"}
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert " und " in sample["prompt"]
    capsys.readouterr()
    assert main(["evaluate", f"run={folder}", "eval=[perplexity,pairs]"]) == 0
    assert "chrf" in capsys.readouterr().out
    again = json.loads((folder / "evaluation.json").read_text())
    assert [entry["metrics"] for entry in again] == [likelihood["metrics"], pairs["metrics"]]
    assert main(["generate", f"run={folder}", "prompt=3 und 4", "max_new_tokens=8"]) == 0


def test_texts_without_targets_are_refused_before_anything_is_written(tiny, tmp_path, capsys):
    assert main(["train", *tiny, "model=transformer_nano", "task=seq2seq", "name=x"]) != 0
    assert "no pairs of source and target" in capsys.readouterr().err
    assert not (tmp_path / "runs/x").exists()


def test_a_model_of_texts_is_not_asked_for_pairs(tiny, tmp_path, capsys):
    assert main(["train", *tiny, "name=g", "trainer.max_steps=1"]) == 0
    assert main(["evaluate", f"run={tmp_path}/runs/g", "eval=pairs"]) != 0
    assert "eval=pairs: it is for models of pairs" in capsys.readouterr().err


def test_a_copy_is_learnt(words, tmp_path):
    sizes = ["model.d_model=64", "model.d_ff=128", "model.context_length=16"]
    batches = ["data.batch_size=32", "data.micro_batch_size=32", "data.validation_share=0.2"]
    quiet = [
        "trainer.val_check_interval=null",
        "checkpoint.every_n_steps=300",
        "trainer.log_every_n_steps=50",
    ]
    recipe = ["model.dropout=0", "model.residual=pre", "optimizer.lr=3e-3", "trainer.max_steps=300"]
    assert main(["train", *changed(words, *sizes, *batches, *quiet, *recipe), "name=c"]) == 0
    pairs = json.loads((tmp_path / "runs/c/evaluation.json").read_text())[1]["metrics"]
    assert pairs["exact_match"] > 0.5
    assert pairs["chrf"] > 80
