import contextlib
import json
from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from llm.train.callbacks import SampleWriter
from llm.train.saving import set_schedule_step


@pytest.mark.parametrize("text", ["plain", "two\nlines", "a\u2028b\u0085c", "猫"])
def test_samples_after_the_resumed_step_go_and_whatever_they_hold_stays_readable(tmp_path, text):
    path = tmp_path / "samples.jsonl"
    samples = SampleWriter(path, lambda: [text], ["p"], 2, [], contextlib.nullcontext)
    for step in (1, 2, 4, 6):
        samples.on_train_batch_end(SimpleNamespace(global_step=step, is_global_zero=True), None)
    with path.open("a") as file:
        file.write('{"step": 8, "prom')

    again = SampleWriter(path, lambda: [text], ["p"], 2, [], contextlib.nullcontext)
    again.on_train_start(SimpleNamespace(global_step=4, is_global_zero=True), None)
    kept = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    assert kept == [{"step": step, "prompt": "p", "text": text} for step in (2, 4)]


def test_a_schedule_is_put_where_its_steps_would_have_put_it():
    def scheduler():
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.SGD(
            [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1.0, 0.1), strict=True)]
        )
        return LambdaLR(optimizer, lambda step: 1 / (step + 1))

    stepped, put = scheduler(), scheduler()
    for _ in range(7):
        stepped.optimizer.step()
        stepped.step()
    set_schedule_step(put, 7)
    for one in (stepped, put):
        one.optimizer.step()
        one.step()
    assert put.get_last_lr() == stepped.get_last_lr()
    assert put.state_dict()["last_epoch"] == 8
