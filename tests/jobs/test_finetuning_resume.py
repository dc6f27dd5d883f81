"""Fine-tuning goes on where it stopped or was killed, whatever the task: the weights of a run that was never stopped."""

import os
import signal

import pytest
import torch

from llm.cli.main import main
from llm.train import checkpoint
from tests.commands import changed, weights
from tests.finetuning_data import TASKS, chat, dpo, seq2seq, start_of, words_of
from tests.training import finish, start, wait_for_steps

LORA = ("adapter=lora", "adapter.rank=4", "adapter.dropout=0.1")
# A task, and what is trained beside the model that it starts from; without that it starts from one where it must.
CASES = {
    **{task.__name__: (task, ()) for task in TASKS},
    "lora": (chat, LORA),
    "nf4": (seq2seq, (*LORA, "adapter.quantize=nf4")),
}


def slow_but(*names):
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in CASES]


def words_for(name, tiny, folder):
    task, beside = CASES[name]
    run = None
    if task is dpo or beside:
        assert (
            main(["train", *start_of(task, tiny, folder), "name=start", "trainer.max_steps=1", "eval=[]"])
            == 0
        )
        run = folder / "runs/start"
    else:
        beside = ("model.dropout=0.1",)
    return [*words_of(task, tiny, folder, run), *beside, "eval=[]"]


def assert_same(one, other):
    ours, theirs = (weights(folder) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", slow_but("tagging", "seq2seq"))
def test_a_resumed_run_equals_one_that_was_never_stopped(tiny, tmp_path, name):
    words = ["train", *words_for(name, tiny, tmp_path), "trainer.max_steps=8"]
    assert main([*words, "name=whole"]) == 0
    middle = tmp_path / "runs/whole/checkpoints/step_00000004"
    assert main([*words, "name=again", f"resume={middle}"]) == 0
    assert_same(tmp_path / "runs/whole", tmp_path / "runs/again")


@pytest.mark.parametrize("name", slow_but("seq2seq"))
def test_a_killed_run_ends_with_the_weights_of_one_that_never_was(python, tiny, tmp_path, name):
    longer = ("trainer.max_steps=80", "checkpoint.every_n_steps=10", "trainer.val_check_interval=null")
    words = changed(words_for(name, tiny, tmp_path), *longer)
    finish(python, words, "name=whole")
    process = start(python, words, "name=killed")
    wait_for_steps(tmp_path / "runs/killed", process, 25)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 20 <= checkpoint.step_of(checkpoint.folders(tmp_path / "runs/killed/checkpoints")[0]) < 80
    assert "Resuming from step" in finish(python, words, "name=killed")
    assert_same(tmp_path / "runs/whole", tmp_path / "runs/killed")
