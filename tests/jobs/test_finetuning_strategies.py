"""Fine-tuning under several processes: the losses of one alone."""

import csv
import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from llm.cli.main import main
from llm.files import read_tensors
from tests.commands import changed, weights, without
from tests.finetuning_data import TASKS, dpo, jsonl, start_of, words_of

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.distributed

TASK_NAMED = {task.__name__: task for task in TASKS}
SAME = ["optimizer.lr=3e-4", "schedule.warmup_steps=1", "trainer.max_steps=5"]


def losses(python, words, folder):
    command = [python, "train.py", *words, f"name={folder.name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return rows_of(folder)


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row["train/loss"]) for row in rows if row["train/loss"]]


ZERO = tuple(f"deepspeed_zero{stage}" for stage in (1, 2, 3))
SPLIT = ("ddp", "fsdp", "fsdp_tp", *ZERO)
LORA = ["adapter=lora"]
ADAPTERS = {
    "whole": [],
    "lora": LORA,
    "rslora": [*LORA, "adapter.rslora=true", "adapter.targets=[query,output,down]"],
    "dora": [*LORA, "adapter.dora=true"],
    "int8": [*LORA, "adapter.quantize=int8", "adapter.dora=true"],
    "nf4": [*LORA, "adapter.quantize=nf4"],
}
# Where an answer begins is told by differences of scores: what shifts those of all positions alike has no gradient, and
# AdamW makes steps of its rounding errors.
SHIFTS = {"qa": ("label_head.output.bias", "blocks.1.residual.norms.feed_forward.bias")}
# What runs each time; every adapter under every strategy is among the slow tests.
QUICK = {"dora": ("fsdp_tp",), "nf4": ("deepspeed_zero3",)}


def installed(strategies):
    """The strategies whose package is there; where that is none of them, the test is skipped."""
    found = [name for name in strategies if name not in ZERO or find_spec("deepspeed")]
    if not found:
        pytest.skip("deepspeed is not installed")
    return found


def quick_and_slow(names, quick):
    """Cases of a name and strategies: the quick ones, and all others slow."""
    some = [pytest.param(name, quick[name], id=f"{name}-quick") for name in quick]
    rest = {name: tuple(s for s in SPLIT if s not in quick.get(name, ())) for name in names}
    return some + [pytest.param(name, rest[name], id=name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def chats(tiny_in, tmp_path_factory):
    """The words that fine-tune a tiny model on chats."""
    folder = tmp_path_factory.mktemp("chats")
    longer = changed(tiny_in(folder), "model.context_length=96", "model.n_kv_heads=2")
    assert main(["train", *longer, "name=base", "trainer.max_steps=1"]) == 0
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"n {n}"},
                {"role": "assistant", "content": "a" * (n % 9 + 1)},
            ]
        }
        for n in range(90)
    ]
    kept = without(longer, "model", "tokenizer", "runs_dir=")
    begun = f"init_from={folder}/runs/base"
    return changed([*kept, *SAME], "task=chat", "data=chat", jsonl(folder, rows), begun)


@pytest.mark.parametrize(("name", "strategies"), quick_and_slow(ADAPTERS, QUICK))
def test_chats_have_the_losses_of_a_single_process(python, chats, tmp_path, name, strategies):
    runs = tmp_path / "runs"
    words = [*chats, *ADAPTERS[name], f"runs_dir={runs}"]
    alone = losses(python, [*words, "strategy=single"], runs / "single")
    for strategy in installed(strategies):
        split = [*words, f"strategy={strategy}", "trainer.devices=2"]
        assert losses(python, split, runs / strategy) == pytest.approx(alone, rel=0, abs=2e-6)
        assert_near(weights(runs / strategy), weights(runs / "single"))
        assert main(["evaluate", f"run={runs / strategy}"]) == 0
        # On from it in one process, and from one process on in it.
        middle = f"resume={runs / strategy}/checkpoints/step_00000004"
        assert main(["train", *words, "strategy=single", f"name={strategy}_alone", middle]) == 0
        middle = f"resume={runs}/single/checkpoints/step_00000004"
        losses(python, [*split, middle], runs / f"{strategy}_again")
        for again in (runs / f"{strategy}_alone", runs / f"{strategy}_again"):
            assert rows_of(again) == pytest.approx(alone[4:], rel=0, abs=2e-6)
            assert_near(weights(again), weights(runs / "single"))


def assert_near(ours, theirs, but=()):
    assert ours.keys() == theirs.keys()
    apart = {
        name: (ours[name] - theirs[name]).abs().max().item() for name in ours if not name.endswith(tuple(but))
    }
    assert max(apart.values()) < 1e-5, max(apart, key=apart.get)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp_tp", *ZERO])
def test_frozen_weights_stay_as_they_were_in_mixed_precision(python, chats, tmp_path, strategy):
    if not installed([strategy]):
        pytest.skip("the extra deepspeed isn't installed")
    mixed = changed([*chats, *LORA], "trainer.precision=bf16-mixed", f"strategy={strategy}")
    words = [*mixed, "trainer.devices=2", f"runs_dir={tmp_path}"]
    losses(python, words, tmp_path / "begun")
    losses(python, [*words, f"resume={tmp_path}/begun/checkpoints/step_00000004"], tmp_path / "resumed")
    (start,) = [word.partition("=")[2] for word in chats if word.startswith("init_from=")]
    beside = {
        name: weight for name, weight in weights(Path(start)).items() if "norm" in name or "embed" in name
    }
    assert len(beside) > 3
    for run in ("begun", "resumed"):
        found = weights(tmp_path / run)
        assert all(torch.equal(found[name], weight) for name, weight in beside.items())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp_tp", "deepspeed_zero3"])
def test_a_split_run_is_merged_and_exported_as_one_of_a_single_process(python, chats, tmp_path, strategy):
    if not installed([strategy]):
        pytest.skip("the extra deepspeed isn't installed")
    runs = tmp_path / "runs"
    words = [*chats, *ADAPTERS["dora"], f"runs_dir={runs}"]
    losses(python, [*words, "strategy=single"], runs / "single")
    losses(python, [*words, f"strategy={strategy}", "trainer.devices=2"], runs / "split")
    for name in ("single", "split"):
        run = f"run={runs / name}"
        assert main(["export", run, "format=peft", f"out={tmp_path}/{name}"]) == 0
        assert main(["merge", run, f"out={runs}/{name}-merged"]) == 0
    one, other = (read_tensors(tmp_path / name / "adapter_model.safetensors") for name in ("single", "split"))
    assert_near(other, one)
    assert_near(weights(runs / "split-merged"), weights(runs / "single-merged"))


@pytest.mark.parametrize(
    ("task", "strategies"),
    quick_and_slow(tuple(TASK_NAMED), {"seq2seq": ("fsdp",), "tagging": ("fsdp_tp",)}),
)
def test_each_task_has_the_losses_of_a_single_process(python, tiny, tmp_path, task, strategies):
    begun, made = None, TASK_NAMED[task]
    if made is dpo:
        assert main(["train", *start_of(made, tiny, tmp_path), "name=start", "trainer.max_steps=1"]) == 0
        begun = tmp_path / "runs/start"
    words = [*words_of(made, tiny, tmp_path, begun), *SAME, *([] if begun else ["model.dropout=0"])]
    alone = losses(python, [*words, "strategy=single"], tmp_path / "runs/single")
    expected = figures_of(tmp_path / "runs/single")
    for strategy in installed(strategies):
        folder = tmp_path / "runs" / strategy
        found = losses(python, [*words, f"strategy={strategy}", "trainer.devices=2"], folder)
        assert found == pytest.approx(alone, rel=0, abs=2e-6)
        assert_near(weights(folder), weights(tmp_path / "runs/single"), SHIFTS.get(task, ()))
        assert figures_of(folder) == pytest.approx(expected, abs=1e-3)


def figures_of(folder):
    return json.loads((folder / "evaluation.json").read_text())[-1]["metrics"]
