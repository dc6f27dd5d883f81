"""Preferences trained by the same commands: on from a run, beside what it said of both answers, resumed and scored."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llm.cli.main import main
from llm.train import checkpoint
from llm.train.rows import read_metrics_rows
from tests.commands import changed

FROM = ("model", "tokenizer")


@pytest.fixture
def base(tiny_run):
    return tiny_run("base", "model.context_length=96", "trainer.max_steps=2")


def rows():
    for n in range(60):
        yield {"prompt": f"Say {n}.", "chosen": f"yes {n}", "rejected": f"no {n}"}


def written(path, records):
    path.write_text("\n".join(map(json.dumps, records)))


@pytest.fixture
def words(tiny, base, tmp_path):
    written(tmp_path / "p.jsonl", rows())
    kept = [
        word
        for word in tiny
        if not word.startswith((*FROM, "data=", "data.paths", "data.micro", "samples.every"))
    ]
    data = ["data=preferences", f"data.paths=[{tmp_path}/p.jsonl]", "data.validation_share=0.2"]
    return [
        *kept,
        *data,
        "data.micro_batch_size=4",
        "task=dpo",
        f"init_from={base}",
        "optimizer.lr=3e-3",
        "samples.every_n_steps=4",
    ]


def scored(folder):
    return json.loads((folder / "evaluation.json").read_text())[-1]["metrics"]


def weights(folder):
    return checkpoint.read_model(checkpoint.find(folder / "checkpoints", None))[1]


@pytest.mark.parametrize("extra", [[], ["adapter=lora"]], ids=["whole", "lora"])
@pytest.mark.parametrize("kind", ["dpo", "ipo", "simpo"])
def test_better_answers_come_to_be_preferred(words, tmp_path, kind, extra):
    chosen = [*words, *extra, f"task.objective.kind={kind}", "name=p"]
    assert main(["train", *chosen, "trainer.max_steps=24"]) == 0
    folder = tmp_path / "runs/p"
    metrics = scored(folder)
    assert metrics["reward_accuracy"] > 0.9
    assert metrics["reward_margin"] > 0
    assert (folder / "references.safetensors").exists() == (kind != "simpo")
    assert main(["evaluate", f"run={folder}"]) == 0
    assert scored(folder)["reward_margin"] == pytest.approx(metrics["reward_margin"], rel=1e-4)
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    assert sample["prompt"].startswith("user\nSay ")
    outputs = json.loads((folder / "evaluation.json").read_text())[-1]["outputs"]
    kept = [json.loads(line) for line in (folder / outputs).read_text().splitlines()]
    assert all("yes" in row["better"] and "no" in row["worse"] for row in kept)


def test_the_first_step_begins_at_the_logarithm_of_two(words, tmp_path):
    assert main(["train", *words, "name=p", "trainer.max_steps=1"]) == 0
    assert main(["evaluate", f"run={tmp_path}/runs/p", "eval=perplexity"]) == 2
    header, first = (tmp_path / "runs/p/metrics.csv").read_text().splitlines()[:2]
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(row["train/loss"]) == pytest.approx(np.log(2), abs=1e-5)
    # A loss of preferences is no text's.
    assert row["train/bits_per_byte"] == ""


def test_a_resumed_run_equals_one_that_was_never_stopped(words, base, tmp_path):
    assert main(["train", *words, "name=p", "trainer.max_steps=8"]) == 0
    whole, references = weights(tmp_path / "runs/p"), load_file(tmp_path / "runs/p/references.safetensors")
    # What was kept lets it go on where the reference model is gone.
    checkpoints = tmp_path / "runs/p/checkpoints"
    checkpoint.remove(checkpoints / "step_00000008")
    base.rename(tmp_path / "runs/elsewhere")
    assert main(["train", *words, "name=p", "trainer.max_steps=8"]) == 0
    again = weights(tmp_path / "runs/p")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    kept = load_file(tmp_path / "runs/p/references.safetensors")
    assert all(torch.equal(kept[name], references[name]) for name in references)


def test_another_set_is_scored_beside_the_first_model(words, tmp_path):
    assert main(["train", *words, "name=p", "trainer.max_steps=16"]) == 0
    # The same preferences as conversations, of which all are scored now.
    talks = [
        {
            key: [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[key]}]
            for key in ("chosen", "rejected")
        }
        for row in rows()
    ]
    written(tmp_path / "other.jsonl", talks)
    shards = next(word for word in words if word.startswith("shards_dir="))
    other = ["data=preferences", f"data.paths=[{tmp_path}/other.jsonl]", shards]
    assert main(["evaluate", f"run={tmp_path}/runs/p", *other]) == 0
    entry = json.loads((tmp_path / "runs/p/evaluation.json").read_text())[-1]
    assert entry["examples"] == 60
    assert entry["metrics"]["reward_accuracy"] > 0.9


def test_each_source_of_a_mixture_is_scored_beside_the_first_model(words, tmp_path):
    assert main(["train", *words, "name=p", "trainer.max_steps=4"]) == 0
    folder, shards = tmp_path / "runs/p", next(word for word in words if word.startswith("shards_dir="))
    several, alone = ["data=mixture", shards], []
    for name, records in {"a": list(rows())[:25], "b": list(rows())[25:]}.items():
        written(tmp_path / f"{name}.jsonl", records)
        key = f"data.sources.{name}"
        several += [f"{key}=preferences", f"{key}.paths=[{tmp_path}/{name}.jsonl]"]
        path = f"data.paths=[{tmp_path}/{name}.jsonl]"
        assert main(["evaluate", f"run={folder}", "data=preferences", path, shards]) == 0
        alone.append(scored(folder))
    assert main(["evaluate", f"run={folder}", *several]) == 0
    entries = json.loads((folder / "evaluation.json").read_text())[-2:]
    assert [(entry["data"], entry["examples"]) for entry in entries] == [("a", 25), ("b", 35)]
    assert [entry["metrics"] for entry in entries] == alone


def rewards(folder):
    """What the preferences of the last entry are rewarded by, by their id."""
    lines = (folder / json.loads((folder / "evaluation.json").read_text())[-1]["outputs"]).read_text()
    return {row["id"]: row["scores"]["reward_margin"][0] for row in map(json.loads, lines.splitlines())}


def test_a_set_is_scored_in_the_context_that_the_run_has(words, tmp_path):
    long = [{**row, "chosen": row["chosen"] + " and so on" * 9} for row in rows()]
    written(tmp_path / "p.jsonl", long)
    assert main(["train", *words, "name=p", "trainer.max_steps=4", "context_length=48"]) == 0
    folder = tmp_path / "runs/p"
    held_out = rewards(folder)
    shards = next(word for word in words if word.startswith("shards_dir="))
    other = ["data=preferences", f"data.paths=[{tmp_path}/p.jsonl]", shards]
    assert main(["evaluate", f"run={folder}", *other]) == 0
    whole = rewards(folder)
    assert len(whole) == 60 > len(held_out) > 1
    assert {name: whole[name] for name in held_out} == pytest.approx(held_out, abs=1e-4)


def test_a_table_has_preferences_too(words, tmp_path):
    (tmp_path / "p.csv").write_text(
        "\n".join(["asked,better,worse", *(",".join(row.values()) for row in rows())])
    )
    columns = ["data.text=asked", "data.label=better", "data.rejected=worse"]
    table = changed(words, "data=csv", f"data.paths={tmp_path}/p.csv", *columns)
    losses = []
    for name, these in (("lines", words), ("table", table)):
        assert main(["train", *these, "trainer.max_steps=1", f"name={name}"]) == 0
        losses.append(read_metrics_rows(tmp_path / f"runs/{name}/metrics.csv")[0]["train/loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "there is no field 'rejected'"),
        ({"chosen": "b", "rejected": "c"}, "there is no field 'prompt'"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "the content of message 2 is empty"),
        (
            {"chosen": [{"role": "user", "content": "x"}], "rejected": [{"role": "user", "content": "x"}]},
            "the assistant says nothing",
        ),
        (
            {
                key: [{"role": "user", "content": key}, {"role": "assistant", "content": key}]
                for key in ("chosen", "rejected")
            },
            "answer different conversations",
        ),
    ],
)
def test_wrong_preferences_are_told_with_their_line(words, tmp_path, record, message, capsys):
    written(tmp_path / "p.jsonl", [*rows(), record])
    assert main(["train", *words, "name=x"]) != 0
    shown = capsys.readouterr().err
    assert "p.jsonl:61" in shown
    assert message in shown
    assert not (tmp_path / "runs/x").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["init_from="], "give one by init_from="),
        (["task=chat"], "rejected answer, which is for task=dpo; task=chat takes conversations"),
        (["data=chat"], "task=dpo needs one (data.rejected=); task=chat trains on conversations"),
        (["task.objective.kind=kto"], "task.objective.kind=kto"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(words, changes, message, tmp_path, capsys):
    if changes == ["data=chat"]:
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        written(tmp_path / "p.jsonl", [{"messages": talk}] * 3)
    replaced = {change.partition("=")[0] for change in changes}
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    assert main(["train", *kept, *changes, "name=x"]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs/x").exists()


def test_code_is_corrupted_the_same_each_time():
    from llm.data.sources.docstrings import CodePreferences, corrupted

    source = (
        "def add(one, two):\n    total = one + two\n    print(total)\n    x = 1\n    y = 2\n    return total"
    )
    worse = corrupted(source)
    assert worse == corrupted(source) != source
    assert worse.count("\n") == source.count("\n") + 1
    made = list(CodePreferences.records("a.py", 'def f(a, b):\n    """Add."""\n    return a + b\n'))
    assert len(made) == 1
