"""Fine-tuning under several processes: the losses of one alone."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from llm.cli.main import main
from tests.finetuning_data import TASKS, dpo, seq2seq, start_of, words_of

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.distributed

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


@pytest.mark.parametrize(
    ("adapter", "strategies"),
    [
        pytest.param(["adapter=lora", "adapter.dora=true"], ("ddp", "fsdp"), id="dora"),
        pytest.param(["adapter=lora", "adapter.quantize=nf4"], ("fsdp",), id="nf4"),
        pytest.param(
            ["adapter=lora"], ("deepspeed_zero1", "deepspeed_zero3"), id="lora", marks=pytest.mark.slow
        ),
        pytest.param(
            ["adapter=lora", "adapter.quantize=int8", "adapter.dora=true"],
            ("ddp", "fsdp"),
            id="int8",
            marks=pytest.mark.slow,
        ),
        pytest.param([], ("ddp", "fsdp"), id="whole", marks=pytest.mark.slow),
    ],
)
def test_chats_have_the_losses_of_a_single_process(python, tiny, tmp_path, adapter, strategies):
    if "deepspeed_zero1" in strategies:
        pytest.importorskip("deepspeed")
    longer = [word.replace("context_length=32", "context_length=96") for word in tiny]
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
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kept = [word for word in longer if not word.startswith(("data=", "data.paths", "model", "tokenizer"))]
    words = [*kept, *SAME, *adapter, "task=chat", "data=chat", f"data.paths=[{tmp_path}/chat.jsonl]"]
    words.append(f"init_from={tmp_path}/runs/base")
    alone = losses(python, [*words, "strategy=single"], tmp_path / "runs/single")
    for strategy in strategies:
        found = losses(
            python, [*words, f"strategy={strategy}", "trainer.devices=2"], tmp_path / "runs" / strategy
        )
        assert found == pytest.approx(alone, rel=0, abs=2e-6)
        assert main(["evaluate", f"run={tmp_path}/runs/{strategy}"]) == 0
        middle = tmp_path / "runs" / strategy / "checkpoints/step_00000004"
        assert main(["train", *words, "strategy=single", "name=again", f"resume={middle}"]) == 0
        assert rows_of(tmp_path / "runs/again") == pytest.approx(alone[4:], rel=0, abs=2e-6)
        middle = tmp_path / "runs/single/checkpoints/step_00000004"
        again = [*words, f"strategy={strategy}", "trainer.devices=2", f"resume={middle}"]
        found = losses(python, again, tmp_path / "runs" / f"{strategy}_again")
        assert found == pytest.approx(alone[4:], rel=0, abs=2e-6)
        shutil.rmtree(tmp_path / "runs/again")


@pytest.mark.parametrize(
    "task",
    [pytest.param(task, marks=() if task is seq2seq else pytest.mark.slow) for task in TASKS],
    ids=lambda task: task.__name__,
)
def test_each_task_has_the_losses_of_a_single_process(python, tiny, tmp_path, task):
    begun = None
    if task is dpo:
        assert main(["train", *start_of(task, tiny, tmp_path), "name=start", "trainer.max_steps=1"]) == 0
        begun = tmp_path / "runs/start"
    words = [*words_of(task, tiny, tmp_path, begun), *SAME, *([] if begun else ["model.dropout=0"])]
    alone = losses(python, [*words, "strategy=single"], tmp_path / "runs/single")
    for strategy in ("ddp", "fsdp"):
        found = losses(
            python, [*words, f"strategy={strategy}", "trainer.devices=2"], tmp_path / "runs" / strategy
        )
        assert found == pytest.approx(alone, rel=0, abs=2e-6)
    metrics = [
        json.loads((tmp_path / f"runs/{name}/evaluation.json").read_text())[-1] for name in ("single", "fsdp")
    ]
    assert metrics[0]["metrics"] == pytest.approx(metrics[1]["metrics"], abs=1e-3)
