"""Chats with an adapter under several processes: the losses of one alone."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm.cli.main import main

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.distributed

SAME = ["optimizer.lr=3e-4", "schedule.warmup_steps=1", "trainer.max_steps=5"]


def losses(words, folder):
    command = [sys.executable, "train.py", *words, f"name={folder.name}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row["train/loss"]) for row in rows if row["train/loss"]]


@pytest.mark.parametrize(
    ("adapter", "strategies"),
    [
        pytest.param(["adapter=lora", "adapter.dora=true"], ("ddp", "fsdp"), id="dora"),
        pytest.param(["adapter=lora", "adapter.quantize=nf4"], ("ddp",), id="nf4", marks=pytest.mark.slow),
        pytest.param([], ("ddp", "fsdp"), id="whole", marks=pytest.mark.slow),
    ],
)
def test_chats_have_the_losses_of_a_single_process(tiny, tmp_path, adapter, strategies):
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
    alone = losses([*words, "strategy=single"], tmp_path / "runs/single")
    for strategy in strategies:
        found = losses([*words, f"strategy={strategy}", "trainer.devices=2"], tmp_path / "runs" / strategy)
        assert found == pytest.approx(alone, rel=0, abs=2e-6)
        assert main(["evaluate", f"run={tmp_path}/runs/{strategy}"]) == 0
