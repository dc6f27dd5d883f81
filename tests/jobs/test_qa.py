"""Questions answered by the same commands: trained, scored, shown, asked, answers and none."""

import json

import pytest

from llm.cli.main import main
from tests.commands import changed

TEXT_WORDS = (
    "data=",
    "data.paths",
    "samples.every",
    "tokenizer=",
    "data.micro",
    "model.context",
    "data.validation",
)


@pytest.fixture
def words(tiny, tmp_path):
    paragraphs = []
    for n in range(120):
        text = f"box {n} holds {'red' if n % 2 else 'blue'} {n % 10}"
        answer = {"text": text[-1], "answer_start": len(text) - 1}
        qas = [
            {"id": f"{n} a", "question": "what number?", "answers": [answer]},
            {"id": f"{n} b", "question": "who?", "answers": [], "is_impossible": True},
        ]
        paragraphs.append({"context": text, "qas": qas})
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    kept = [word for word in tiny if not word.startswith(TEXT_WORDS)]
    qa = ["task=qa", "data=squad", f"data.paths=[{tmp_path}/a.json]", "data.validation_share=0.2"]
    sizes = ["tokenizer.vocab_size=300", "data.micro_batch_size=8", "model.context_length=64"]
    return [*kept, *qa, *sizes, "samples.every_n_steps=20"]


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_a_run_answers_what_is_plain_to_see(words, tmp_path, capsys, name):
    recipe = ["trainer.max_steps=120", "optimizer.lr=1e-2", *(["model=bert_nano"] if name == "bert" else [])]
    assert main(["train", *words, *recipe, "name=q"]) == 0
    folder = tmp_path / "runs/q"
    (entry,) = json.loads((folder / "evaluation.json").read_text())
    assert entry["evaluation"] == "qa"
    assert entry["metrics"]["exact_match"] > 0.9
    assert entry["metrics"]["unanswerable"] == 0.5
    kept = [json.loads(line) for line in (folder / entry["outputs"]).read_text().splitlines()]
    assert len(kept) == entry["examples"]
    assert {row["text"].partition("\n")[0] for row in kept} == {"what number?", "who?"}
    assert sum(row["prediction"] in (row["target"] or [""]) for row in kept) / len(kept) == pytest.approx(
        entry["metrics"]["exact_match"]
    )
    low, high = entry["intervals"]["has_answer_f1"]
    assert low <= entry["metrics"]["has_answer_f1"] <= high
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    assert "\nbox " in sample["prompt"]
    capsys.readouterr()
    assert main(["generate", f"run={folder}", "prompt=what number?\nbox 3 holds red 7"]) == 0
    assert capsys.readouterr().out == "7\n"
    assert main(["generate", f"run={folder}", "prompt=who?\nbox 3 holds red 7"]) == 0
    assert capsys.readouterr().out == "(no answer)\n"
    assert main(["generate", f"run={folder}", "prompt=what number?"]) != 0
    assert "give one, a line end, and the text" in capsys.readouterr().err
    assert main(["evaluate", f"run={folder}", "eval=tagging"]) != 0
    assert "eval=qa scores it" in capsys.readouterr().err


def test_tables_are_asked_and_scored_by_the_columns_of_the_run(words, tmp_path):
    for name, asked in (("a", "what number?"), ("b", "which?")):
        rows = [f"{asked},box {n} holds {n % 10},{n % 10 if n % 2 else ''}" for n in range(60)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["asked,about,answer", *rows]))
    columns = ["data.text=asked", "data.label=answer", "data.passage=about"]
    table = changed(words, "data=csv", f"data.paths={tmp_path}/a.csv", *columns)
    assert main(["train", *table, "model=bert_nano", "trainer.max_steps=2", "name=t"]) == 0
    shards = next(word for word in words if word.startswith("shards_dir="))
    other = ["data=csv", f"data.paths={tmp_path}/b.csv", shards]
    assert main(["evaluate", f"run={tmp_path}/runs/t", *other]) == 0
    *_, entry = json.loads((tmp_path / "runs/t/evaluation.json").read_text())
    assert (entry["evaluation"], entry["split"], entry["examples"]) == ("qa", "all", 60)
    assert entry["metrics"]["unanswerable"] == 0.5


def test_other_data_are_no_questions(words, tmp_path, capsys):
    kept = [word for word in words if word not in ("data=squad", "tokenizer.vocab_size=300")]
    other = ["data=text", "tokenizer.vocab_size=400", "model=bert_nano", "name=x"]
    assert main(["train", *kept, *other]) != 0
    assert "data=squad makes questions for task=qa" in capsys.readouterr().err
    assert not (tmp_path / "runs/x").exists()
