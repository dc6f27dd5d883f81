"""When the watch ends a job, without ending this one."""

import faulthandler
import os
import threading
import time
from types import SimpleNamespace

import pytest

from llm.train.hang import CHECKS, PATIENCE, HangWatch
from llm.train.run import Run

SECONDS = 0.4
TRAINER = SimpleNamespace(global_rank=1, global_step=7, is_global_zero=False)


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """A watch that has seen a first step, and notes its exit in `ended` in place of leaving."""
    watch = HangWatch(Run(tmp_path), SECONDS)
    watch.ended = threading.Event()

    def leave(code):
        assert code == 1
        watch.ended.set()
        watch.teardown(TRAINER, None, "fit")

    monkeypatch.setattr(os, "_exit", leave)
    watch.on_fit_start(TRAINER, None)
    watch.on_train_batch_end(TRAINER, None)
    yield watch
    watch.teardown(TRAINER, None, "fit")
    # Its last means, which would end this process.
    faulthandler.cancel_dump_traceback_later()


def test_it_ends_a_job_that_does_nothing_and_leaves_every_thread_s_stack(watch, tmp_path, capsys):
    assert watch.ended.wait(20 * SECONDS)
    stacks = (tmp_path / "hang-rank-1.txt").read_text()
    assert "after step 7" in stacks
    assert "test_it_ends_a_job_that_does_nothing" in stacks
    assert "_watch" in stacks
    assert "error: Rank 1" in capsys.readouterr().err


def test_steps_keep_it_quiet(watch):
    for _ in range(30):
        time.sleep(SECONDS / 10)
        watch.on_train_batch_end(TRAINER, None)
    assert not watch.ended.is_set()


def test_it_is_patient_within_what_may_take_long(watch, tmp_path):
    with watch.unhurried():
        time.sleep(3 * SECONDS)
    assert not watch.ended.is_set()
    watch.on_validation_start(TRAINER, None)
    time.sleep(3 * SECONDS)
    watch.on_validation_end(TRAINER, None)
    assert not watch.ended.is_set()
    assert watch.ended.wait(20 * SECONDS)


def test_it_is_patient_with_the_first_step(tmp_path):
    watch = HangWatch(Run(tmp_path), SECONDS)
    watch.on_fit_start(TRAINER, None)
    assert watch._limit(longest=0) == PATIENCE * SECONDS
    watch.on_train_batch_end(TRAINER, None)
    assert watch._limit(longest=0) == SECONDS
    assert watch._limit(longest=SECONDS) == 2 * SECONDS
    watch.on_exception(TRAINER, None, ValueError())
    time.sleep(2 * SECONDS / CHECKS)
    assert "hang-watch" not in {thread.name for thread in threading.enumerate()}
