"""A mixture by the commands: trained, gone on with, scored by source, refused where it cannot be."""

import contextlib
import csv
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from llm.build.corpora import MIXING, check_mixes
from llm.cli.compose import compose
from llm.cli.main import main
from llm.data.collators import CausalCollator
from llm.data.collators.base import Setting
from llm.data.mixture import open_text, samples_of
from llm.errors import ConfigError
from llm.model import Transformer, init_weights
from llm.train import checkpoint
from llm.train.run import Run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def words(tiny, text_folder, tmp_path):
    (tmp_path / "rhymes.txt").write_text("One, two, buckle my shoe. Three, four, shut the door.\n" * 60)
    kept = [word for word in tiny if not word.startswith(("data=", "data.paths", "shards_dir"))]
    sources = [
        "data=mixture",
        "data.sources.code=text",
        f"data.sources.code.paths=[{text_folder}/*.txt]",
        "data.sources.rhymes=text",
        f"data.sources.rhymes.paths=[{tmp_path}/rhymes.txt]",
        "data.sources.rhymes.weight=0.5",
        f"shards_dir={tmp_path}/shards",
    ]
    return [*kept, *sources]


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_losses_are_told_apart_as_a_split_by_hand_does(words, tmp_path, capsys):
    every = ["trainer.limit_val_batches=1.0", "trainer.max_steps=1", "trainer.val_check_interval=1"]
    words = [word for word in words if word.partition("=")[0] not in {e.partition("=")[0] for e in every}]
    assert main(["train", *words, *every, "name=a"]) == 0
    run = Run.open(tmp_path / "runs/a")
    mixture = open_text(run.begun["data"])
    model_config, _ = checkpoint.read_model(checkpoint.find(run.checkpoints, None))
    net = Transformer(model_config)
    init_weights(net, 1337)
    collate = CausalCollator(Setting(mixture.tokenizer, 1337, model_config))
    samples = samples_of(collate, mixture.train, 32, 1337)
    windows = torch.from_numpy(samples.training(np.arange(8)))
    sources = samples.order.place(np.arange(8))[0]
    (row,) = rows(run.folder)
    with torch.no_grad():
        nats = torch.nn.functional.cross_entropy(
            net(windows[:, :-1]).transpose(1, 2), windows[:, 1:], reduction="none"
        )
    assert sources.tolist().count(1) in (2, 3)  # a third of eight
    for source, name in enumerate(mixture.corpora):
        assert float(row[f"train/loss/{name}"]) == pytest.approx(
            nats[sources == source].mean().item(), rel=1e-5
        )
    entries = {
        entry["data"]: entry["metrics"] for entry in json.loads((run.folder / "evaluation.json").read_text())
    }
    assert set(entries) == {"code", "rhymes"}
    for name, metrics in entries.items():
        assert float(row[f"val/loss/{name}"]) == pytest.approx(metrics["loss"], rel=1e-5)
    tokens = {name: metrics["tokens"] for name, metrics in entries.items()}
    pooled = sum(metrics["loss"] * tokens[name] for name, metrics in entries.items()) / sum(tokens.values())
    assert float(row["val/loss"]) == pytest.approx(pooled, rel=1e-5)
    assert "loss by source" in (run.folder / "report.html").read_text()
    capsys.readouterr()
    assert main(["evaluate", f"run={run.folder}"]) == 0
    assert "perplexity on rhymes" in capsys.readouterr().out


def test_going_on_gives_the_weights_and_the_sources_of_one_run(words, tmp_path):
    words = [*words, "data.sources.rhymes.epochs=1", "schedule=wsd", "schedule.decay_ratio=0"]
    assert main(["train", *words, "name=whole", "trainer.max_steps=8"]) == 0
    assert main(["train", *words, "name=parts", "trainer.max_steps=4"]) == 0
    assert main(["train", *words, "name=parts", "trainer.max_steps=8"]) == 0
    whole, parted = (
        checkpoint.read_model(checkpoint.find(tmp_path / "runs" / name / "checkpoints", None))[1]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
    by_source = [
        [(row["train/loss/code"], row["train/loss/rhymes"]) for row in rows(tmp_path / "runs" / name)]
        for name in ("whole", "parts")
    ]
    assert by_source[0] == by_source[1]


def test_other_weights_are_other_data(words, tmp_path, capsys):
    assert main(["train", *words, "name=a", "trainer.max_steps=2"]) == 0
    changed = [word.replace("weight=0.5", "weight=2") for word in words]
    assert main(["train", *changed, "name=a", "trainer.max_steps=4"]) != 0
    assert "The data of this run changed" in capsys.readouterr().err


def test_prepare_makes_each_source_with_one_tokenizer(words, tmp_path, capsys):
    kept = [w for w in words if w.startswith(("data=", "data.sources", "shards_dir"))]
    kept = [w for w in kept if "weight" not in w]
    assert main(["prepare", *kept, "dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^data\.sources\.\w+$", told, re.MULTILINE) == [
        "data.sources.code",
        "data.sources.rhymes",
    ]
    assert told.count("Nothing was written") == 2
    assert main(["prepare", *kept, "tokenizer.vocab_size=400"]) == 0
    assert capsys.readouterr().out.count("Shards:") == 2
    made = sorted(path.parent.name for path in (tmp_path / "shards").glob("*/index.json"))
    hashes = {
        json.loads((tmp_path / "shards" / name / "index.json").read_text())["tokenizer_hash"] for name in made
    }
    assert len(made) == 2
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["data.sources.rhymes.weight=0"], "data.sources.rhymes.weight=0"),
        (["data.sources.rhymes.weight=nan"], "data.sources.rhymes.weight"),
        (["data.sources.rhymes.weigth=1"], "Did you mean data.sources.rhymes.weight?"),
        (["data.sources.more=wikipdia"], "Did you mean data.sources.more=wikipedia?"),
        (["data.sources.more=mixture"], "there is no such data.sources.more"),
        (["data.sources.code.batch_size=4"], "data.sources.code.batch_size"),
        (
            ["data.sources.code.epochs=1", "data.sources.rhymes.epochs=1", "trainer.max_steps=9999"],
            "without epochs",
        ),
    ],
)
def test_bad_mixtures_are_refused_before_a_run_begins(words, tmp_path, capsys, extra, message):
    kept = [word for word in words if word.partition("=")[0] not in {e.partition("=")[0] for e in extra}]
    assert main(["train", *kept, *extra, "name=x"]) != 0
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs/x/checkpoints").exists()


@pytest.mark.parametrize(
    ("verb", "extra"), [("train", ["name=x"]), ("train", ["dry_run=true"]), ("prepare", [])], ids=str
)
@pytest.mark.parametrize("task", ["classification", "prefix_decoder"])
def test_a_task_that_mixes_no_sources_is_refused_before_one_is_prepared(
    words, tmp_path, capsys, verb, extra, task
):
    kept = words if verb == "train" else [word for word in words if word.startswith(("data=", "data.sour"))]
    kept = [word for word in kept if not word.startswith(("model.", "shards_dir"))]
    shards = f"shards_dir={tmp_path}/untouched"
    assert main([verb, *kept, *extra, f"task={task}", shards]) == 2
    assert re.search(r"data=mixture: .*task=causal_lm, .* and summarization do", capsys.readouterr().err)
    assert not (tmp_path / "untouched").exists()


TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


def test_the_tasks_that_an_error_names_are_those_that_mix():
    mixing = []
    for task in TASKS:
        config = compose("train", ["data=mixture", "data.sources.a=stdlib", f"task={task}"]).config
        with contextlib.suppress(ConfigError):
            check_mixes(config)
            mixing.append(task)
    assert tuple(mixing) == MIXING


def of_pairs(folder):
    """A mixture of two sources of pairs, which are written into `folder`."""
    sources = []
    for name, word in {"de": "und", "fr": "et"}.items():
        pairs = [{"source": f"{n} {word} {m}", "target": f"{n} and {m}"} for n in range(9) for m in range(9)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, pairs)))
        sources += [f"data.sources.{name}=pairs", f"data.sources.{name}.paths=[{folder}/{name}.jsonl]"]
    return ["data=mixture", *sources]


def test_pairs_are_mixed_and_scored_by_source(tiny, tmp_path):
    kept = [
        w for w in tiny if not w.startswith(("data=", "model.n_kv_heads", "model.head_dim", "data.paths"))
    ]
    task = [
        "model=transformer_nano",
        "task=seq2seq",
        "name=p",
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
    ]
    kept = [w for w in kept if not w.startswith(("trainer.val_check_interval", "trainer.limit_val_batches"))]
    task.append("trainer.limit_val_batches=1.0")
    assert main(["train", *kept, *of_pairs(tmp_path), *task]) == 0
    entries = json.loads((tmp_path / "runs/p/evaluation.json").read_text())
    assert [(entry["data"], entry["evaluation"]) for entry in entries] == [
        (name, evaluation) for name in ("de", "fr") for evaluation in ("perplexity", "pairs")
    ]
    (row,) = [row for row in rows(tmp_path / "runs/p") if row["val/loss"]]
    losses = {entry["data"]: entry["metrics"]["loss"] for entry in entries if "loss" in entry["metrics"]}
    assert {name: float(row[f"val/loss/{name}"]) for name in losses} == pytest.approx(losses, rel=1e-5)


def test_bits_per_byte_of_joined_pairs_are_told_of_a_mixture_too(tiny, tmp_path):
    kept = [word for word in tiny if not word.startswith(("data=", "data.paths"))]
    task = ["task=seq2seq", "eval=[perplexity]", "name=p", "trainer.max_steps=1"]
    assert main(["train", *kept, *of_pairs(tmp_path), *task]) == 0
    (row,) = rows(tmp_path / "runs/p")
    # Each target is `n and m`, seven bytes, and an end of text.
    bits = float(row["train/loss"]) / math.log(2) * 8 / 7
    assert float(row["train/bits_per_byte"]) == pytest.approx(bits, rel=1e-6)


def test_a_mixture_without_sources_and_sources_without_a_mixture_are_refused(tiny, capsys):
    kept = [word for word in tiny if not word.startswith(("data=", "data.paths", "shards_dir"))]
    assert main(["train", *kept, "data=mixture", "name=x"]) != 0
    assert "add data.sources.<name>" in capsys.readouterr().err
    assert main(["train", *kept, "data=stdlib", "data.sources.a=stdlib", "name=x"]) != 0
    assert "only data=mixture has sources" in capsys.readouterr().err


@pytest.mark.distributed
def test_two_processes_tell_the_losses_of_one(python, words, tmp_path):
    for name, extra in {"one": [], "two": ["strategy=ddp", "trainer.devices=2"]}.items():
        done = subprocess.run(
            [python, "-m", "llm", "train", *words, *extra, f"name={name}", "trainer.max_steps=4"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = (rows(tmp_path / "runs" / name) for name in ("one", "two"))
    for column in ("train/loss/code", "train/loss/rhymes", "train/loss"):
        own, theirs = ([float(row[column]) for row in table] for table in (one, two))
        assert theirs == pytest.approx(own, rel=2e-6)
    assert json.loads((tmp_path / "runs/two/run.json").read_text())["strategy"]["world_size"] == 2
