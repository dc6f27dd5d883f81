"""`dry_run=true`: figures that add up, and nothing written."""

import json
import re
from dataclasses import fields

import pytest
import yaml
from safetensors.torch import load_file

from llm.cli.main import main
from llm.jobs.show import MEMORY_KINDS, duration
from llm.plan import Memory
from tests.commands import without


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def figures(out):
    """The lines of the tables as {what: value}."""
    return dict(re.findall(r"^  ([a-zA-Z ]+?)  +(\S.*?)(?:  .*)?$", out, re.MULTILINE))


def dry(tiny, capsys, *overrides):
    given = {word.partition("=")[0] for word in overrides}
    words = [word for word in tiny if word.partition("=")[0] not in given]
    code = main(["train", "dry_run=true", *words, *overrides])
    return code, capsys.readouterr()


def test_unprepared_text_is_not_prepared(tiny, tmp_path, capsys):
    shards = tmp_path / "none"
    code, said = dry(tiny, capsys, f"shards_dir={shards}", "trainer.max_steps=8", "name=a")
    assert code == 0
    assert not shards.exists()
    assert not (tmp_path / "runs").exists()
    shown = figures(said.out)
    assert shown["tokens a step"] == "256"
    assert shown["tokens"] == "2,048"
    assert shown["epochs"] == shown["shards"] == "?"
    assert said.out.count("known once the text is prepared") == 2


def test_epochs_alone_of_unprepared_text_leave_the_steps_open(tiny, tmp_path, capsys):
    words = [f"shards_dir={tmp_path}/none", "trainer.max_steps=-1", "trainer.max_epochs=2"]
    code, said = dry(tiny, capsys, *words)
    assert code == 0
    assert figures(said.out)["steps"] == "?"


def test_prepared_text_gives_every_figure(tiny, tmp_path, capsys):
    main(["train", *tiny, "name=a", "trainer.max_steps=4"])
    capsys.readouterr()
    before = {path: path.read_bytes() for path in files(tmp_path / "runs")}
    code, said = dry(tiny, capsys, "trainer.max_steps=8", "name=a")
    assert code == 0
    assert "?" not in figures(said.out).values()
    assert "checkpoint of step 4" in said.out
    assert {path: path.read_bytes() for path in files(tmp_path / "runs")} == before


LORA = ["adapter=lora", "adapter.rank=4"]


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param([], id="whole"),
        pytest.param(LORA, id="lora", marks=pytest.mark.slow),
        pytest.param([*LORA, "adapter.quantize=nf4"], id="nf4"),
    ],
)
def test_a_checkpoint_is_as_large_as_is_said(tiny, tiny_run, tmp_path, capsys, beside):
    if beside:
        start = tiny_run("start", "trainer.max_steps=1")
        tiny = [*without(tiny, "model", "tokenizer"), *beside, f"init_from={start}"]
    main(["train", *tiny, "name=a", "trainer.max_steps=4"])
    capsys.readouterr()
    _, said = dry(tiny, capsys, "trainer.max_steps=4", "name=a")
    folder = tmp_path / "runs/a/checkpoints/step_00000004"
    tensors = [
        *load_file(folder / "model.safetensors").values(),
        *load_file(folder / "optimizer.safetensors").values(),
    ]
    value, letter, _ = re.match(r"([\d.]+) (\w?)(B)", figures(said.out)["a checkpoint"]).groups()
    said_bytes = float(value) * {"k": 1e3, "M": 1e6, "": 1}[letter]
    assert said_bytes == pytest.approx(sum(tensor.nbytes for tensor in tensors), rel=0.01)


def test_the_composed_config_comes_first(tiny, capsys):
    _, said = dry(tiny, capsys, "name=a", "trainer.max_steps=8")
    config = yaml.safe_load(said.out.partition("The run\n")[0])
    assert config["trainer"]["max_steps"] == 8
    assert config["dry_run"] is True


def test_it_takes_as_long_as_the_plan_says(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("llm.train.derive.peak_flops", lambda *_: 1e9)
    words = ["trainer.max_steps=5000", "activation_checkpointing=1", "name=a"]
    code, said = dry(tiny, capsys, *words)
    assert code == 0
    given = without(tiny, "trainer.max_steps")
    assert main(["plan", *given, *words, f"out={tmp_path}/plan.json"]) == 0
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert planned["train_seconds"] > 60
    assert figures(said.out)["time"] == f"about {duration(planned['train_seconds'])}"


def test_every_kind_of_memory_is_told_of():
    assert set(MEMORY_KINDS) == {field.name for field in fields(Memory)}


def test_what_training_refuses_is_refused(tiny, capsys):
    code, said = dry(tiny, capsys, "data.batch_size=9", "name=a")
    assert code == 2
    assert "does not divide" in said.err


def test_a_dataset_of_the_hub_is_not_downloaded(tiny, capsys, monkeypatch):
    monkeypatch.setattr("llm.data.sources.huggingface.load", lambda source: 1 / 0)
    words = ["data=huggingface", "data.path=someone/something", "trainer.max_steps=8", "name=a"]
    tiny = [word for word in tiny if not word.startswith("data.paths")]
    code, said = dry(tiny, capsys, *words)
    assert code == 0
    assert figures(said.out)["epochs"] == "?"
