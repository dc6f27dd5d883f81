"""The bar on a terminal, the lines elsewhere, and what neither may do."""

import io
import re
import time
from types import SimpleNamespace

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from rich.console import Console

from llm.train.metrics import StepMetrics
from llm.train.progress import REFRESH_SECONDS, TrainingProgress, left, short


class FakeTime:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def trainer(step=0, total=600, rank=0):
    return SimpleNamespace(global_step=step, max_steps=total, is_global_zero=rank == 0, training=True)


def metrics(step, total=600):
    return StepMetrics(
        step=step,
        total_steps=total,
        tokens=step * 100,
        loss=2.34567,
        bits_per_byte=1.23456,
        lr=1e-3,
        grad_norm=0.5,
        tokens_per_second=12345.6,
        mfu=0.432,
        data_wait=0.01,
        seconds_left=None if total is None else 125.0,
    )


def progress(terminal, rank=0, total=600, encoding="utf-8", width=100, save_every=250):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(file=file, force_terminal=terminal, width=width, legacy_windows=False)
    now = FakeTime()
    shown = TrainingProgress(save_every, console, now)
    shown.setup(trainer(rank=rank), None, "fit")
    shown.on_train_start(trainer(total=total))
    return shown, now, lambda: file.buffer.getvalue().decode(encoding)


def screen(output):
    """What is left of a terminal's output without its colours and moves."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


def test_a_logged_step_is_a_line_where_there_is_no_terminal():
    shown, _, output = progress(terminal=False)
    shown.show_step(metrics(10))
    assert output() == (
        "step 10/600  loss 2.3457  bits/byte 1.2346  lr 1.00e-03  12.3k tokens/s  MFU 43.2%  data wait 1%  "
        "2:05 left\n"
    )


def test_lines_come_every_ten_seconds_at_most_and_the_last_always():
    shown, now, output = progress(terminal=False)
    for step in range(10, 610, 10):
        shown.show_step(metrics(step))
        now.seconds += 1
    steps = [int(line.split()[1].split("/")[0]) for line in output().splitlines()]
    assert steps == [10, 110, 210, 310, 410, 510, 600]


def test_validation_is_a_line():
    shown, _, output = progress(terminal=False)
    shown.show_validation(250, 1.5, 0.75)
    assert output() == "step 250/600  val loss 1.5000  val bits/byte 0.7500\n"


def test_the_bar_shows_everything():
    shown, now, output = progress(terminal=True, width=120)
    shown.show_step(metrics(300))
    shown.show_validation(250, 1.5, 0.75)
    now.seconds += 5
    shown.on_train_batch_end(trainer(step=302))
    last = screen(output())[-400:]
    for part in (
        "training 302/600",
        "50%",
        "2:00 left",
        "loss 2.3457",
        "bits/byte 1.2346",
        "12.3k tokens/s",
        "MFU 43.2%",
        "data wait 1%",
        "val loss 1.5000",
        "next save at 500",
    ):
        assert part in last, part


def test_the_bar_is_redrawn_twice_a_second_at_most():
    shown, now, output = progress(terminal=True)
    before = len(output())
    for _ in range(100):
        shown.on_train_batch_end(trainer(step=1))
    assert len(output()) == before
    now.seconds += REFRESH_SECONDS
    for _ in range(100):
        shown.on_train_batch_end(trainer(step=2))
    assert output()[before:].count("training 2/600") == 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_bar_fits_any_width(width):
    shown, now, output = progress(terminal=True, width=width)
    shown.show_step(metrics(300))
    now.seconds += 1
    shown.on_train_batch_end(trainer(step=302))
    assert all(len(line) <= width for line in screen(output()).replace("\r", "\n").split("\n"))


def test_a_step_that_draws_nothing_costs_little():
    shown, _, _ = progress(terminal=True)
    one = trainer(step=1)
    began = time.process_time()
    for _ in range(10_000):
        shown.on_train_batch_end(one)
    assert (time.process_time() - began) / 10_000 < 2e-5


@pytest.mark.parametrize("terminal", [True, False])
def test_samples_are_printed_whole(terminal):
    shown, _, output = progress(terminal)
    shown.show_samples(250, ["def ", "import "], ["main():\n    [red]pass[/red]", "os"])
    said = screen(output())
    assert said.count("a sample of step 250") == 2
    assert re.search(r"  def main\(\):\s*\n      \[red\]pass\[/red\]\s*\n", said)
    assert "import os" in said


def test_samples_cannot_command_the_terminal():
    shown, _, output = progress(terminal=False)
    shown.show_samples(1, [""], ["a\x1b[2J\x07b\rc\x9bd\u202ee"])
    assert "a␛[2J␇b␍c\N{REPLACEMENT CHARACTER}d\N{REPLACEMENT CHARACTER}e" in output()


def test_any_text_prints_on_a_narrow_encoding():
    shown, now, output = progress(terminal=True, encoding="ascii")
    shown.show_samples(1, ["ü"], ["日本語 \ud800"])
    now.seconds += 1
    shown.on_train_batch_end(trainer(step=1))
    assert "????" in screen(output())


@pytest.mark.parametrize("terminal", [True, False])
def test_other_ranks_show_nothing(terminal):
    shown, now, output = progress(terminal, rank=1)
    now.seconds += 100
    shown.on_train_batch_end(trainer(step=600))
    shown.show_step(metrics(600))
    shown.show_validation(600, 1.0, 1.0)
    shown.show_samples(600, ["a"], ["b"])
    shown.print("c")
    assert output() == ""


def test_a_run_without_end():
    shown, now, output = progress(terminal=True, total=-1)
    shown.show_step(metrics(10, total=None))
    now.seconds += 1
    shown.on_train_batch_end(trainer(step=11, total=-1))
    assert re.search(r"training 11 ", screen(output()))
    assert "left" not in output()


def test_the_terminal_is_given_back_when_training_fails():
    shown, _, output = progress(terminal=True)
    assert output().count("\x1b[?25l") == 1
    shown.on_exception(trainer(step=7), None, RuntimeError())
    shown.teardown(trainer(step=7), None, "fit")
    assert output().count("\x1b[?25h") == 1
    assert "stopped at 7/600" in screen(output())


def test_lightning_takes_it_for_its_own_bar(tmp_path):
    file = io.StringIO()
    shown = TrainingProgress(console=Console(file=file, force_terminal=True, width=100))
    L.Trainer(
        accelerator="cpu",
        max_steps=3,
        callbacks=[shown],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    ).fit(BoringModel())
    assert "trained 3/3" in screen(file.getvalue())


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (5, "  0:05 left"), (59.7, "  1:00 left"), (3723, "  1:02:03 left")]
)
def test_time_left(seconds, text):
    assert left(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (12345, "12.3k"), (2.5e6, "2.5M"), (3e9, "3.0G")]
)
def test_short_numbers(number, text):
    assert short(number) == text
