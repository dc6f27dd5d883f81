"""What every task does alike: it goes on as if it had never stopped, shows itself to W&B, and refuses what can't be."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from llm.cli.main import main
from llm.train.rows import read_metrics_rows
from tests.commands import changed, on_labels, on_pairs, weights, without
from tests.fake_wandb import FakeRun


@dataclass(frozen=True)
class Task:
    """A task's own words, the data that it needs, and the words of a run that it starts from."""

    words: Sequence[str]
    data: Callable[[list[str], Path], list[str]] = lambda words, folder: words
    start: Sequence[str] | None = None


BERT = ("model=bert_nano", "task=masked_lm")
LORA = ("adapter=lora", "adapter.rank=4", "adapter.dropout=0.1", "optimizer.lr=1e-2")
TASKS = {
    "masked_lm": Task(BERT),
    "span_corruption": Task(("model=t5_nano", "task=span_corruption")),
    "prefix_decoder": Task(("task=prefix_decoder",)),
    "seq2seq": Task(("model=transformer_nano", "task=seq2seq", "model.dropout=0.1"), on_pairs),
    "classification": Task(("task=classification",), on_labels, start=BERT),
    "lora": Task(LORA, start=()),
}


@pytest.fixture(scope="module")
def words_of(tiny_in, tmp_path_factory):
    """Gives the words of a task's run and their folder; what the run starts from is trained once."""

    @cache
    def made(name):
        task, folder = TASKS[name], tmp_path_factory.mktemp(name)
        words = tiny_in(folder)
        if task.start is not None:
            assert main(["train", *changed(words, *task.start), "name=start", "trainer.max_steps=2"]) == 0
            words = [*without(words, "model", "tokenizer"), f"init_from={folder}/runs/start"]
        return changed(task.data(words, folder), *task.words), folder

    return made


@dataclass(frozen=True)
class Whole:
    """A run of eight steps, and what it logged to W&B."""

    words: list[str]
    folder: Path
    logged: FakeRun


@pytest.fixture(scope="module", params=TASKS)
def whole(request, words_of):
    import wandb

    words, folder = words_of(request.param)
    words = changed(words, "samples.every_n_steps=4", "schedule=inverse_sqrt", "trainer.max_steps=8")
    logged = FakeRun()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb, "init", lambda **_: logged)
        shown = ["logger=wandb", "logger.wandb.mode=offline", "name=whole"]
        assert main(["train", *words, *shown]) == 0
    return Whole(words, folder / "runs/whole", logged)


def test_going_on_gives_the_weights_of_one_run(whole):
    middle = whole.folder / "checkpoints/step_00000004"
    assert main(["train", *whole.words, "name=again", f"resume={middle}"]) == 0
    again, once = weights(whole.folder.with_name("again")), weights(whole.folder)
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_wandb_gets_every_figure_and_a_table_of_samples(whole):
    rows = whole.logged.rows.values()
    csv = read_metrics_rows(whole.folder / "metrics.csv")
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [
        float(row["train/loss"]) for row in csv
    ]
    assert len(csv) == 8
    assert [row["step"] for row in rows if "val/loss" in row] == [4, 8]
    tables = [row["samples"] for row in rows if "samples" in row]
    kept = [json.loads(line) for line in (whole.folder / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in kept} == {4, 8}
    assert tables[-1].columns == ["step", "prompt", "text"]
    assert tables[-1].data == [[sample["step"], sample["prompt"], sample["text"]] for sample in kept]


def test_the_report_shows_what_it_was_scored_by(whole):
    page = (whole.folder / "report.html").read_text()
    figures = [entry["metrics"] for entry in json.loads((whole.folder / "evaluation.json").read_text())]
    assert figures
    assert all(f'<th scope="row">{name}</th>' in page for metrics in figures for name in metrics)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("masked_lm", ["task=causal_lm"], "task needs architecture=decoder: task=masked_lm trains"),
        ("masked_lm", ["model=gpt_nano"], "architecture=decoder, and the task needs architecture=encoder: task=causal_lm"),
        ("masked_lm", ["task.collator.share=1.5"], "share=1.5: it must be above 0 and below 1"),
        ("span_corruption", ["task=masked_lm"], "task needs architecture=encoder: task=span_corruption or, on pairs, task=seq2seq trains"),
        ("span_corruption", ["task.sentinels=1"], "the tokenizer has 1 sentinels"),
        ("span_corruption", ["task.collator.denoisers=[{share: 2}]"], "at most 0.9"),
        ("prefix_decoder", ["model=bert_nano"], "architecture=encoder, and the task needs architecture=decoder"),
        ("classification", ["init_from=", "model=t5_nano"], "task needs architecture=encoder or decoder: task=span_corruption"),
        ("classification", ["data.label=star"], "Did you mean data.label=stars?"),
        ("lora", ["init_from="], "give one by init_from="),
        ("lora", ["adapter.rank=64"], "adapter.rank=64"),
        ("lora", ["adapter.targets=[quary]"], "Did you mean query?"),
        ("lora", ["adapter.quantize=int3"], "it is int8 or nf4"),
        ("lora", ["adapter.ranks=4"], "adapter.rank"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(words_of, task, changes, message, capsys):
    words, folder = words_of(task)
    assert main(["train", *changed(words, *changes), "name=x"]) != 0
    assert message in capsys.readouterr().err
    assert not (folder / "runs/x").exists()
