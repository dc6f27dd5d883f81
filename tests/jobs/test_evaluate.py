import json
import math
import re
from types import SimpleNamespace

import pytest

from llm.cli.main import main
from llm.errors import ConfigError
from llm.evaluation import harness
from llm.jobs.evaluate import evaluations
from llm.train.rows import read_metrics_rows
from llm.train.run import Run


@pytest.fixture
def trained(tiny_run):
    return tiny_run("a", "trainer.max_steps=4")


def entries(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_the_runs_own_split_gives_the_figures_of_training_again(trained, capsys):
    before = entries(trained)
    assert main(["evaluate", f"run={trained}"]) == 0
    assert entries(trained) == before
    metrics = before[0]["metrics"]
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["bits_per_byte"] == pytest.approx(
        metrics["loss"] / math.log(2) * metrics["tokens"] / metrics["bytes"]
    )
    assert "bits per byte" in capsys.readouterr().out


def test_all_of_another_set_is_scored(trained, tiny, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("def spam():\n    return 'eggs'\n" * 50)
    shards = next(word for word in tiny if word.startswith("shards_dir="))
    assert main(["evaluate", f"run={trained}", "data=text", f"data.paths=[{other}]", shards]) == 0
    mine = [entry for entry in entries(trained) if entry["split"] == "all"]
    assert [entry["metrics"]["bytes"] for entry in mine] == [other.stat().st_size]


def test_the_text_key_comes_from_the_run_unless_it_is_typed(tiny, tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    lines = [{"body": f"def spam_{n}():\n    return {n}\n", "text": "x"} for n in range(60)]
    path.write_text("\n".join(map(json.dumps, lines)))
    words = [word for word in tiny if not word.startswith("data")]
    data = ["data=jsonl", f"data.paths=[{path}]"]
    sizes = ["data.batch_size=4", "data.micro_batch_size=4"]
    assert main(["train", *words, *data, *sizes, "data.text=body", "name=j", "trainer.max_steps=2"]) == 0
    shards = next(word for word in tiny if word.startswith("shards_dir="))
    assert main(["evaluate", f"run={tmp_path}/runs/j", *data, shards]) == 0
    found = [entry for entry in entries(tmp_path / "runs/j") if entry["split"] == "all"]
    assert [entry["metrics"]["bytes"] for entry in found] == [sum(len(line["body"]) for line in lines)]


def test_all_of_each_source_of_a_mixture_is_scored(tiny, tmp_path):
    shards = next(word for word in tiny if word.startswith("shards_dir="))
    fields = {"mine": "body", "other": "body", "typed": "text"}
    sizes, words = {}, []
    for name, field in fields.items():
        lines = [{"body": f"def {name}_{n}():\n    return {n}\n", "text": f"{name} {n}"} for n in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        sizes[name] = sum(len(line[field]) for line in lines)
        words += [f"data.sources.{name}=jsonl", f"data.sources.{name}.paths=[{tmp_path}/{name}.jsonl]"]
    kept = [word for word in tiny if not word.startswith(("data=", "data.paths"))]
    own = ["data=jsonl", f"data.paths=[{tmp_path}/mine.jsonl]", "data.text=body"]
    mixed = ["data=mixture", *words[:2], "data.sources.mine.text=body", *words[4:]]
    for run, data in {"alone": own, "mixed": mixed}.items():
        assert main(["train", *kept, *data, f"name={run}", "trainer.max_steps=1"]) == 0
    typed = "data.sources.typed.text=text"
    assert main(["evaluate", f"run={tmp_path}/runs/alone", "data=mixture", *words, typed, shards]) == 0
    assert all_of(tmp_path / "runs/alone") == sizes
    # The run's source of a name says how one of the same name is read.
    assert main(["evaluate", f"run={tmp_path}/runs/mixed", "data=mixture", *words, shards]) == 0
    others = sum(len(f"other {n}") for n in range(60))
    assert all_of(tmp_path / "runs/mixed") == {**sizes, "other": others}


def all_of(folder):
    """How many bytes were scored of each set that was scored whole."""
    return {entry["data"]: entry["metrics"]["bytes"] for entry in entries(folder) if entry["split"] == "all"}


def test_several_runs_are_scored_one_after_the_other(trained, tiny, tmp_path, capsys):
    assert main(["train", *tiny, "name=b", "trainer.max_steps=2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"run=[{trained},{tmp_path}/runs/b]"]) == 0
    out = capsys.readouterr().out
    assert str(trained) in out
    assert f"{tmp_path}/runs/b" in out


def lines_of(folder, entry):
    return [json.loads(line) for line in (folder / entry["outputs"]).read_text().splitlines()]


def test_what_each_document_was_scored_is_kept_and_adds_up(trained):
    (entry,) = entries(trained)
    rows = lines_of(trained, entry)
    assert len(rows) == entry["examples"]
    for name in ("loss", "bits_per_byte"):
        above, below = (sum(part) for part in zip(*[row["scores"][name] for row in rows], strict=True))
        assert above / below == pytest.approx(entry["metrics"][name], rel=1e-12)
    assert sum(row["scores"]["bits_per_byte"][1] for row in rows) == entry["metrics"]["bytes"]


def test_it_is_scored_while_it_trains_by_the_code_that_scores_it_at_the_end(tiny, tmp_path):
    words = [*tiny, "name=a", "trainer.max_steps=6", "eval_every_n_steps=2", "eval=[perplexity,code]"]
    assert main(["train", *words]) == 0
    run = Run(tmp_path / "runs/a")
    rows = {int(row["step"]): row for row in read_metrics_rows(run.metrics)}
    ends = {entry["evaluation"]: entry["metrics"] for entry in entries(run.folder)}
    assert [step for step, row in rows.items() if row["eval/perplexity/loss"]] == [2, 4, 6]
    assert float(rows[6]["eval/perplexity/loss"]) == ends["perplexity"]["loss"]
    assert float(rows[6]["eval/code/parse_share"]) == ends["code"]["parse_share"]
    assert [float(row["train/loss"]) > 0 for row in rows.values()] == [True] * 6
    assert main(["train", *words[:-3], "trainer.max_steps=8", *words[-2:]]) == 0
    resumed = {int(row["step"]): row for row in read_metrics_rows(run.metrics)}
    assert {step: resumed[step] for step in range(1, 7)} == rows
    assert resumed[8]["eval/perplexity/loss"]


def test_scoring_changes_nothing_in_training(tiny, tmp_path):
    for name, every in (("a", "null"), ("b", "1")):
        assert (
            main(["train", *tiny, f"name={name}", "trainer.max_steps=4", f"eval_every_n_steps={every}"]) == 0
        )
    losses = [
        [row["train/loss"] for row in read_metrics_rows(tmp_path / f"runs/{name}/metrics.csv")]
        for name in "ab"
    ]
    assert losses[0] == losses[1]


def test_it_is_not_kept_where_that_is_switched_off(tiny, tmp_path):
    assert main(["train", *tiny, "name=a", "trainer.max_steps=2", "save_outputs=false"]) == 0
    assert not (tmp_path / "runs/a/outputs").exists()
    assert "outputs" not in entries(tmp_path / "runs/a")[0]


def test_runs_are_compared_on_the_same_documents(trained, tiny, tmp_path, text_folder, capsys):
    assert main(["train", *tiny, "name=b", "trainer.max_steps=12"]) == 0
    shards = next(word for word in tiny if word.startswith("shards_dir="))
    data = ["data=text", f"data.paths=[{text_folder}/*.txt]", shards]
    capsys.readouterr()
    assert main(["evaluate", f"run=[{trained},{tmp_path}/runs/b]", *data]) == 0
    out = capsys.readouterr().out
    assert re.search(r"bits_per_byte: a less b is \S+ \(\S+ to \S+\), p = ", out)
    page = (tmp_path / "runs/evaluation.html").read_text()
    assert "a less b" in page
    assert not re.search(r"https?://|url\(|@import", page)
    low, high = entries(trained)[-1]["intervals"]["bits_per_byte"]
    assert low <= entries(trained)[-1]["metrics"]["bits_per_byte"] <= high


def test_tasks_of_the_harness_are_scored_as_they_are_typed(trained, task_folder, capsys, monkeypatch):
    words = [
        "eval=lm_eval",
        "lm_eval.tasks=[prose]",
        f"lm_eval.include_path={task_folder}",
        "lm_eval.limit=4",
    ]
    assert main(["evaluate", f"run={trained}", *words]) == 0
    entry = entries(trained)[-1]
    assert (entry["evaluation"], entry["data"], entry["split"]) == ("lm_eval", "prose", "first 4")
    assert entry["examples"] == len(lines_of(trained, entry)) == 4
    assert entry["metrics"]["byte_perplexity"] == pytest.approx(2 ** entry["metrics"]["bits_per_byte"])
    # A slow test of tests/evaluation/test_harness.py reads the harness's own ten thousand files.
    monkeypatch.setattr(harness, "_defaults", lambda: SimpleNamespace(all_tasks=[]))
    words[1] = "lm_eval.tasks=[proze]"
    assert main(["evaluate", f"run={trained}", *words]) == 2
    assert "Did you mean prose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run=nowhere"], 1, "not a run folder"),
        (["eval=[beauty]"], 2, "perplexity"),
        (["checkpoint=step_00000099"], 1, "no checkpoint"),
    ],
)
def test_bad_commands_get_one_clear_message(trained, capsys, words, code, message):
    run = [] if words[0].startswith("run=") else [f"run={trained}"]
    assert main(["evaluate", *run, *words]) == code
    assert message in capsys.readouterr().err


def test_a_flipped_bit_in_the_newest_checkpoint_is_passed_over_and_said(trained, tiny, capsys):
    assert main(["train", *tiny, "name=a", "trainer.max_steps=6"]) == 0
    path = trained / "checkpoints/step_00000006/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["evaluate", f"run={trained}"]) == 0
    assert "Passing over a damaged checkpoint" in capsys.readouterr().out
    assert entries(trained)[-1]["checkpoint"] == "step_00000004"


def test_the_best_checkpoint_is_found_by_every_command(tiny, tmp_path, capsys):
    words = [*tiny, "name=w", "checkpoint.keep_last=1"]
    assert main(["train", *words, "trainer.max_steps=4"]) == 0
    worse = ["trainer.max_steps=8", "optimizer.lr=100", "allow_changes=true"]
    assert main(["train", *words, *worse]) == 0
    run = tmp_path / "runs/w"
    assert main(["evaluate", f"run={run}", "checkpoint=best"]) == 0
    assert entries(run)[-1]["checkpoint"] == "step_00000004"
    capsys.readouterr()
    ask = ["generate", f"run={run}", "temperature=0", "max_new_tokens=8"]
    texts = []
    for which in ("best", "step_00000004"):
        assert main([*ask, f"checkpoint={which}"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_a_run_with_another_tokenizer_in_its_folder_is_refused(trained, tiny, tmp_path, capsys):
    from llm.tokenizer import ByteSpec

    other = ByteSpec(special_tokens=("<unk>", "<pad>", "<|endoftext|>", "<other>")).build(())
    other.save(trained / "tokenizer")
    assert main(["evaluate", f"run={trained}"]) == 1
    assert "another tokenizer" in capsys.readouterr().err
    assert Run.open(trained).record["status"] == "finished"


def test_a_name_that_nobody_checked_is_refused_before_anything_is_scored():
    with pytest.raises(ConfigError, match=r"eval=perplexty: there is no such evaluation.*perplexity"):
        evaluations(["perplexity", "perplexty"], corpus=None, subject=None, checkpoint="now")
