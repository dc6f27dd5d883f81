"""Numbers told of texts by the same commands."""

import json

import pytest
import torch
from scipy import stats

from llm.cli.main import main
from llm.evaluation import classification
from llm.model import ModelConfig
from llm.train.checkpoint import find, read_manifest

TEXT_WORDS = ("data=", "data.paths", "samples.every", "data.micro")


@pytest.fixture
def words(tiny, tmp_path):
    rows = [f"{'x' * (n % 9)} {n},{1000 + 100 * (n % 9)}" for n in range(180)]
    (tmp_path / "a.csv").write_text("\n".join(["text,price", *rows]))
    kept = [word for word in tiny if not word.startswith(TEXT_WORDS)]
    labelled = ["data=csv", f"data.paths={tmp_path}/a.csv", "data.label=price", "data.validation_share=0.2"]
    return [*kept, *labelled, "task=regression", "samples.every_n_steps=20", "data.micro_batch_size=8"]


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_a_run_tells_numbers_that_are_plain_to_see(words, tmp_path, capsys, name):
    recipe = ["trainer.max_steps=60", "optimizer.lr=1e-2", *(["model=bert_nano"] if name == "bert" else [])]
    assert main(["train", *words, *recipe, "name=n"]) == 0
    (entry,) = json.loads((tmp_path / "runs/n/evaluation.json").read_text())
    assert entry["metrics"]["pearson"] > 0.9
    assert entry["metrics"]["mse"] < entry["metrics"]["mean_mse"] / 4
    capsys.readouterr()
    assert main(["generate", f"run={tmp_path}/runs/n", "prompt=xx 3"]) == 0
    assert abs(float(capsys.readouterr().out) - 1200) < 250


def test_a_label_that_is_no_number_is_named(words, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text,price\n" + "".join(f"a {n},{n}\n" for n in range(50)) + "b,dear\n")
    kept = [word for word in words if not word.startswith("data.validation_share")]
    assert main(["train", *kept, "model=bert_nano", "name=x", "data.validation_share=0"]) != 0
    assert "the label 'dear': task=regression needs a number" in capsys.readouterr().err


def test_a_task_of_labels_forgets_the_numbers_of_the_model_that_it_starts_from(words, tmp_path):
    assert main(["train", *words, "model=bert_nano", "name=n", "trainer.max_steps=2"]) == 0
    (tmp_path / "b.csv").write_text(
        "text,price\n" + "".join(f"{'ab'[n % 2] * 9} {n},{n % 2}\n" for n in range(90))
    )
    kept = [word for word in words if not word.startswith(("model.", "tokenizer", "task=", "data.paths"))]
    start = [f"init_from={tmp_path}/runs/n", "task=classification", f"data.paths={tmp_path}/b.csv"]
    assert main(["train", *kept, *start, "name=c", "trainer.max_steps=2"]) == 0
    told, labelled = (
        read_manifest(find(tmp_path / f"runs/{name}/checkpoints", None))["model"] for name in "nc"
    )
    assert told["number_std"] > 100
    assert (labelled["number_mean"], labelled["number_std"]) == (0.0, 1.0)


def test_numbers_that_are_all_the_same_are_refused(words, capsys, tmp_path):
    (tmp_path / "a.csv").write_text("text,price\n" + "".join(f"a {n},7\n" for n in range(50)))
    assert main(["train", *words, "model=bert_nano", "name=x"]) != 0
    assert "are all the same" in capsys.readouterr().err


def test_figures_are_those_of_scipy(monkeypatch):
    told, right = torch.randn(2, 200, generator=torch.Generator().manual_seed(0)).double()
    right = (2 * right + told).round(decimals=1)
    monkeypatch.setattr(classification, "predicted_labels", lambda *_, **__: (told[:, None].float(), right))
    model = torch.nn.Module()
    model.config = ModelConfig(labels=("number",), labelled="number", number_mean=1.0)
    monkeypatch.setattr(classification, "read_texts", lambda *_: list(map(str, range(200))))
    found = classification.score_numbers(model, None, None, None)
    figures = found.metrics
    assert found.examples == len(found.rows) == 200
    assert sum(row["scores"]["mse"][0] for row in found.rows) / 200 == pytest.approx(figures["mse"], rel=1e-5)
    assert figures["pearson"] == pytest.approx(stats.pearsonr(told, right)[0], abs=1e-5)
    assert figures["spearman"] == pytest.approx(stats.spearmanr(told, right)[0], abs=1e-5)
    assert figures["mse"] == pytest.approx(float(((told - right) ** 2).mean()), rel=1e-5)
    assert figures["mean_mse"] == pytest.approx(float(((1 - right) ** 2).mean()), rel=1e-5)
