import contextlib
import json
from types import SimpleNamespace

import pytest

from llm.train.callbacks import SampleWriter


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
