"""Texts told apart by the same commands: on from a pretrained run or from scratch, scored, shown, asked."""

import json
import re

import pytest
import torch

from llm.cli.main import main
from llm.train import checkpoint
from llm.train.rows import read_metrics_rows
from tests.commands import changed, on_labels, without


@pytest.fixture
def words(tiny, tmp_path):
    return changed(on_labels(tiny, tmp_path), "task=classification", "samples.every_n_steps=2")


def kind(name):
    return ["model=bert_nano"] if name == "bert" else []


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_a_run_tells_apart_what_is_plain_to_see(words, tmp_path, capsys, name):
    recipe = ["trainer.max_steps=30", "optimizer.lr=1e-2", "data.micro_batch_size=8"]
    assert main(["train", *changed(words, *kind(name), *recipe), "name=c"]) == 0
    folder = tmp_path / "runs/c"
    (entry,) = json.loads((folder / "evaluation.json").read_text())
    assert entry["evaluation"] == "classification"
    # Labels are no tokens that are read.
    tokens = json.loads((folder / "results.json").read_text())[-1]["metrics"]["tokens"]
    assert tokens == pytest.approx(int(read_metrics_rows(folder / "metrics.csv")[-1]["tokens"]), rel=0.02)
    assert entry["metrics"]["accuracy"] > 0.9 > entry["metrics"]["majority"]
    counts, right = entry["confusion"], [row[n] for n, row in enumerate(entry["confusion"])]
    assert entry["labels"] == ["0", "1"]
    assert sum(map(sum, counts)) == sum(bin["texts"] for bin in entry["reliability"]) == entry["examples"]
    assert sum(right) / entry["examples"] == pytest.approx(entry["metrics"]["accuracy"])
    rows = [json.loads(line) for line in (folder / entry["outputs"]).read_text().splitlines()]
    assert all((row["target"] == "1") == row["text"].startswith("so good") for row in rows)
    assert sum(row["prediction"] == row["target"] for row in rows) == sum(right)
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    assert sample["prompt"].startswith(("so good", "too bad"))
    assert {line.split()[1] for line in sample["text"].splitlines()} == {"0", "1"}
    capsys.readouterr()
    assert main(["generate", f"run={folder}", "prompt=so good 7"]) == 0
    assert capsys.readouterr().out.split()[1] == "1"


def test_a_pretrained_run_goes_on_with_labels(tiny, words, tmp_path):
    assert main(["train", *tiny, "model=bert_nano", "task=masked_lm", "name=b", "trainer.max_steps=2"]) == 0
    start = [*without(words, "model", "tokenizer"), f"init_from={tmp_path}/runs/b", "name=c"]
    assert main(["train", *start, "trainer.max_steps=6"]) == 0
    before, after = (
        checkpoint.read_model(checkpoint.find(tmp_path / "runs" / name / "checkpoints", None))
        for name in ("b", "c")
    )
    assert after[0].labels == ("0", "1")
    gone, new = before[1].keys() - after[1].keys(), after[1].keys() - before[1].keys()
    assert all(name.startswith("unembedding.") for name in gone)
    assert {name.split(".")[0] for name in new} == {"label_head", "pooler"}
    shift = (before[1]["embedding.tokens.weight"] - after[1]["embedding.tokens.weight"]).abs().max()
    assert 0 < shift < 0.02
    weights = after[1]["label_head.output.weight"]
    assert torch.isfinite(weights).all()


def test_another_set_is_scored_and_its_unknown_labels_are_named(words, tmp_path, capsys):
    assert main(["train", *words, "model=bert_nano", "name=c", "trainer.max_steps=2"]) == 0
    (tmp_path / "b.csv").write_text("body,stars\n" + "".join(f"good {n},1\nbad {n},0\n" for n in range(30)))
    other = ["data=csv", f"data.paths={tmp_path}/b.csv"]
    shards = next(word for word in words if word.startswith("shards_dir="))
    ask = ["evaluate", f"run={tmp_path}/runs/c", "eval=classification", *other, shards]
    assert main(ask) == 0
    assert json.loads((tmp_path / "runs/c/evaluation.json").read_text())[-1]["examples"] == 60
    (tmp_path / "b.csv").write_text("body,stars\n" + "".join(f"good {n},7\nbad {n},0\n" for n in range(30)))
    assert main(ask) != 0
    assert "the label '7', which the model never saw" in capsys.readouterr().err


def test_one_label_tells_nothing_apart(words, tmp_path, capsys):
    (tmp_path / "labels.jsonl").write_text(
        "\n".join(json.dumps({"body": f"a {n}", "stars": 1}) for n in range(50))
    )
    assert main(["train", *words, "model=bert_nano", "name=x"]) != 0
    assert "at least two are needed" in capsys.readouterr().err


def test_a_model_with_labels_is_not_asked_for_tokens(words, tmp_path, capsys):
    assert main(["train", *words, "model=bert_nano", "name=c", "trainer.max_steps=1"]) == 0
    assert main(["evaluate", f"run={tmp_path}/runs/c", "eval=perplexity"]) != 0
    assert "a model with labels predicts no tokens" in capsys.readouterr().err


def test_a_dry_run_counts_the_head_of_labels(words, tmp_path, capsys):
    assert main(["train", *words, "name=c", "trainer.max_steps=1"]) == 0
    counted = json.loads((tmp_path / "runs/c/run.json").read_text())["parameters"]
    capsys.readouterr()
    assert main(["train", *words, "name=d", "dry_run=true"]) == 0
    assert re.search(rf"parameters +{counted:,}", capsys.readouterr().out)
