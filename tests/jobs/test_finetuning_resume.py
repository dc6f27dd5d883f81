"""Fine-tuning goes on where it stopped, whatever the task: the weights of a run that was never stopped."""

import pytest
import torch

from llm.cli.main import main
from llm.train import checkpoint
from tests.finetuning_data import classification, qa, summarization, tagging, words_of


@pytest.mark.parametrize(
    "task",
    [
        tagging,
        pytest.param(classification, marks=pytest.mark.slow),
        pytest.param(qa, marks=pytest.mark.slow),
        pytest.param(summarization, marks=pytest.mark.slow),
    ],
    ids=lambda task: task.__name__,
)
def test_a_resumed_run_equals_one_that_was_never_stopped(tiny, tmp_path, task):
    words = ["train", *words_of(task, tiny, tmp_path), "model.dropout=0.1", "eval=[]", "trainer.max_steps=8"]
    assert main([*words, "name=whole"]) == 0
    middle = tmp_path / "runs/whole/checkpoints/step_00000004"
    assert main([*words, "name=again", f"resume={middle}"]) == 0
    whole, again = (
        checkpoint.read_model(checkpoint.find(tmp_path / f"runs/{name}/checkpoints", None))[1]
        for name in ("whole", "again")
    )
    assert all(torch.equal(whole[name], again[name]) for name in whole)
