"""Words tagged by the same commands: from CoNLL files or lists, on from a pretrained run, scored, shown, asked."""

import json
import shutil

import pytest

from llm.cli.main import main
from llm.train import checkpoint

TEXT_WORDS = ("data=", "data.paths", "samples.every", "tokenizer=", "data.micro_batch_size")


def sentences(first=0, kind="place"):
    for n in range(first, first + 60):
        yield ["go", "to", f"Upper{n % 7}", "Town", "by", "7"], ["O", "O", f"B-{kind}", f"I-{kind}", "O", "O"]
        yield ["stay", "at", "home"], ["O", "O", "O"]


def conll(path, rows):
    lines = ["\n".join(f"{word}\tx\t{tag}" for word, tag in zip(*row, strict=True)) for row in rows]
    path.write_text("\n\n".join(lines) + "\n")
    return path


@pytest.fixture
def words(tiny, tmp_path):
    # Sentences that are alike are kept once.
    rows = [([*words, f"{n}"], [*tags, "O"]) for n, (words, tags) in enumerate(sentences())]
    conll(tmp_path / "a.conll", rows)
    kept = [word for word in tiny if not word.startswith(TEXT_WORDS)]
    tagging = ["task=tagging", "data=conll", f"data.paths=[{tmp_path}/a.conll]", "data.validation_share=0.2"]
    return [
        *kept,
        *tagging,
        "samples.every_n_steps=20",
        "tokenizer.vocab_size=300",
        "data.micro_batch_size=8",
    ]


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_a_run_tags_what_is_plain_to_see(words, tmp_path, capsys, name):
    recipe = ["trainer.max_steps=60", "optimizer.lr=1e-2", *(["model=bert_nano"] if name == "bert" else [])]
    assert main(["train", *words, *recipe, "name=t"]) == 0
    folder = tmp_path / "runs/t"
    (entry,) = json.loads((folder / "evaluation.json").read_text())
    assert entry["evaluation"] == "tagging"
    assert entry["metrics"]["f1"] > 0.95
    assert entry["metrics"]["accuracy"] > 0.95 > entry["metrics"]["majority"]
    assert entry["metrics"]["f1_place"] == entry["metrics"]["f1"]
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    assert sample["prompt"].startswith(("go to Upper", "stay at home"))
    assert checkpoint.read_model(checkpoint.find(folder / "checkpoints", None))[0].labels == (
        "B-place",
        "I-place",
        "O",
    )
    capsys.readouterr()
    assert main(["generate", f"run={folder}", "prompt=go to Upper3 Town by 7 3"]) == 0
    assert capsys.readouterr().out == "place\tUpper3 Town\n"


def test_lists_of_json_lines_are_the_same_sentences(words, tmp_path, capsys):
    assert main(["train", *words, "model=bert_nano", "name=c", "trainer.max_steps=2"]) == 0
    rows = [json.dumps({"words": words, "ner": tags}) for words, tags in sentences(100)]
    (tmp_path / "b.jsonl").write_text("\n".join(dict.fromkeys(rows)))
    shards = next(word for word in words if word.startswith("shards_dir="))
    keys = ["data=jsonl", f"data.paths={tmp_path}/b.jsonl", "data.text=words", "data.label=ner"]
    # A second run, of the same weights.
    shutil.copytree(tmp_path / "runs/c", tmp_path / "runs/d")
    capsys.readouterr()
    assert main(["evaluate", f"run=[{tmp_path}/runs/c,{tmp_path}/runs/d]", *keys, shards]) == 0
    assert "f1_place: c less d is 0 (0 to 0), p = 1, which may be chance" in capsys.readouterr().out
    entry = json.loads((tmp_path / "runs/c/evaluation.json").read_text())[-1]
    assert (entry["evaluation"], entry["split"], entry["examples"]) == ("tagging", "all", 8)
    kept = [json.loads(line) for line in (tmp_path / "runs/c" / entry["outputs"]).read_text().splitlines()]
    assert {row["text"]: row["target"] for row in kept} == {
        " ".join(words): tags for words, tags in sentences(100)
    }
    assert set(entry["intervals"]) == set(entry["metrics"])


def test_a_tag_that_training_never_saw_is_named(words, tmp_path, capsys):
    assert main(["train", *words, "model=bert_nano", "name=c", "trainer.max_steps=2"]) == 0
    other = conll(tmp_path / "b.conll", list(sentences(kind="person")))
    shards = next(word for word in words if word.startswith("shards_dir="))
    assert main(["evaluate", f"run={tmp_path}/runs/c", "data=conll", f"data.paths={other}", shards]) == 1
    assert "the label 'B-person', which the model never saw in training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model=t5_nano"], "task needs architecture=encoder or decoder"),
        (["data.label=7"], "there are 3 columns"),
        (["data.label=0"], "are one column"),
        (["task.collator.stride=0"], "must be at least 1"),
        (
            ["task.objective.label_weights={B-person: 2}"],
            "there is no label B-person, only B-place, I-place, O",
        ),
        (["data=text"], "The documents of this corpus are no words with labels"),
    ],
)
def test_what_does_not_fit_is_refused(words, changes, message, tmp_path, capsys):
    replaced = {change.partition("=")[0] for change in changes}
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    model = [] if "model" in replaced else ["model=bert_nano"]
    assert main(["train", *kept, *model, *changes, "name=x"]) != 0
    assert message in capsys.readouterr().err


def test_long_sentences_are_read_in_windows_and_counted(words, tmp_path, capsys):
    rows = [([f"{word}{n}" for n in range(40)], ["B-x" if word == "b" else "O"] * 40) for word in "abcdefgh"]
    long = conll(tmp_path / "long.conll", rows)
    kept = [word for word in words if not word.startswith(("data.paths", "data.validation_share"))]
    assert main(["train", *kept, f"data.paths={long}", "name=w", "trainer.max_steps=2"]) == 0
    told = capsys.readouterr().out
    assert "7 of 7 texts are longer than model.context_length=32 and are read in windows." in told


def test_labels_may_count_more_than_others(words, tmp_path):
    weights = "task.objective.label_weights={O: 0, B-place: 1, I-place: 1}"
    recipe = ["model=bert_nano", "trainer.max_steps=30", "optimizer.lr=1e-2", "name=w"]
    assert main(["train", *words, weights, *recipe]) == 0
    (entry,) = json.loads((tmp_path / "runs/w/evaluation.json").read_text())
    assert entry["metrics"]["recall"] < 0.5 or entry["metrics"]["precision"] < 0.9  # what is O goes unlearnt


def test_a_run_stops_early_where_it_no_longer_learns(words, tmp_path):
    stop = ["callbacks=early_stopping", "callbacks.early_stopping.patience=2"]
    recipe = ["model=bert_nano", "trainer.max_steps=400", "optimizer.lr=0.5", "trainer.val_check_interval=2"]
    kept = [word for word in words if not word.startswith(("trainer.val_check", "samples"))]
    assert main(["train", *kept, *stop, *recipe, "name=s"]) == 0
    folder = tmp_path / "runs/s"
    record = json.loads((folder / "run.json").read_text())
    steps = json.loads((folder / "results.json").read_text())[-1]["metrics"]["steps"]
    assert (record["status"], steps < 400) == ("stopped", True)
    rows = (folder / "metrics.csv").read_text().splitlines()
    losses = [float(row.split(",")[4]) for row in rows[1:] if row.split(",")[4]]
    assert min(losses) not in losses[-2:]
