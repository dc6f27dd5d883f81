"""A sweep's command line: what counts as several values, and what its jobs are called."""

import pytest

from llm.cli.main import main
from llm.cli.overrides import split_words
from llm.cli.sweep import Axis, default_name, label, read_plan


def plan(*words):
    return read_plan(split_words(["-m", *words]))


def axes(*words):
    return {axis.key: axis.options for axis in plan(*words).axes}


def test_commas_part_the_values_of_numbers_words_and_groups():
    found = axes("optimizer.lr=1e-3,3e-4", "model=nano,gpt_nano", "model.norm=rms,layer", "seed=1")
    assert found == {
        "optimizer.lr": ("0.001", "0.0003"),
        "model": ("nano", "gpt_nano"),
        "model.norm": ("rms", "layer"),
    }


def test_hydras_own_ways_to_write_several():
    assert axes("seed=range(1,4)")["seed"] == ("1", "2", "3")
    assert axes("optimizer.betas=[0.9,0.95],[0.9,0.99]")["optimizer.betas"] == ("[0.9,0.95]", "[0.9,0.99]")
    assert axes("model.n_layers=choice(2,3)")["model.n_layers"] == ("2", "3")


def test_a_key_that_takes_any_text_keeps_its_commas():
    assert axes("data=text", "data.paths=a,b.txt", "shards_dir=x,y", "seed=1,2") == {"seed": ("1", "2")}
    assert "data.paths=a,b.txt" in plan("data=text", "data.paths=a,b.txt", "seed=1,2").shared


def test_a_key_given_twice_takes_each_as_typed():
    assert axes("init_from=runs/a, b", "init_from=runs/c=d") == {"init_from": ("runs/a, b", "runs/c=d")}


def test_every_combination_once_the_last_key_fastest():
    jobs = list(plan("optimizer.lr=1e-3,3e-4,1e-3", "seed=1,2").grid())
    assert [tuple(job.values()) for job in jobs] == [
        ("0.001", "1"),
        ("0.001", "2"),
        ("0.0003", "1"),
        ("0.0003", "2"),
    ]


def test_the_words_of_a_job_have_each_key_once():
    words = plan("seed=1,2", "name=mine", "optimizer.lr=0.1", "sweep.trials=3").words(
        {"seed": "2"}, "mine/seed_2"
    )
    assert words == ["optimizer.lr=0.1", "seed=2", "name=mine/seed_2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["seed=1"], "no key has several values"),
        (["name=a", "name=b", "seed=1,2"], "share this"),
        (["runs_dir=a", "runs_dir=b", "seed=1,2"], "share this"),
        (["model=nano,gpt_nan"], "Did you mean model=gpt_nano?"),
        (["model=gpt_nan,nano"], "Did you mean model=gpt_nano?"),
        (["optimizer.lrr=1,2"], "Did you mean optimizer.lr?"),
        (["optimizer.lr=1e-3,fast"], "expected float"),
        (["optimizer.lr=interval(1e-4,1e-2)"], "add sweep.sampler=tpe"),
        (["seed=1,2", "sweep.trails=3"], "Did you mean sweep.trials?"),
        (["seed=1,2", "sweep.sampler=bayes"], "grid, tpe, random, cmaes"),
        (["seed=1,2", "--max_steps", "5"], "written without dashes"),
        (["seed=1,2", "trainer"], "an equals sign is missing"),
        (["seed=1,2", "--cfg", "job"], "leave -m out"),
    ],
)
def test_a_mistake_in_any_job_starts_none(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_only_training_sweeps_and_only_with_m(capsys):
    assert main(["evaluate", "-m", "run=a"]) == 2
    assert "only llm train sweeps" in capsys.readouterr().err
    assert main(["train", "sweep.trials=3"]) == 2
    assert "add -m" in capsys.readouterr().err


def test_a_dry_run_lists_the_jobs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "seed=1,2", "optimizer.lr=1e-3,1e-2", "name=mine", "dry_run=true"]) == 0
    out = capsys.readouterr().out
    assert "mine/seed_1-lr_0.01" in out
    assert len([line for line in out.splitlines() if line.startswith("mine/")]) == 4
    assert not list(tmp_path.iterdir())


def test_names_tell_what_differs():
    mine = plan("optimizer.lr=1e-3,3e-4", "model=nano,gpt_nano")
    assert label(mine, {"optimizer.lr": "0.001", "model": "nano"}) == "lr_0.001-model_nano"
    assert default_name(mine, {"optimizer.lr": "0.001", "model": "nano"}) == "stdlib-causal_lm-sweep-lr-model"


def test_keys_with_the_same_end_are_written_out():
    both = plan("checkpoint.every_n_steps=1,2", "samples.every_n_steps=1,2")
    values = {"checkpoint.every_n_steps": "1", "samples.every_n_steps": "2"}
    assert label(both, values) == "checkpoint.every_n_steps_1-samples.every_n_steps_2"


def test_values_that_no_folder_can_be_called_by_stay_apart():
    mine = plan("init_from=runs/a", "init_from=runs_a", "init_from=" + "x" * 300)
    labels = [label(mine, {"init_from": value}) for value in mine.axes[0].options]
    assert len(set(labels)) == 3
    assert all("/" not in text and "=" not in text and len(text) < 200 for text in labels)


def test_an_axis_has_a_first_value():
    assert Axis("seed", ("3", "4")).low() == "3"
    assert float(Axis("optimizer.lr", word="optimizer.lr=tag(log,interval(1e-4,1e-2))").low()) == 1e-4


def test_no_secret_is_in_a_folder_name():
    words = [f"data.paths=https://me:{word}@host/a.txt" for word in ("s3cret", "h1dden")]
    mine = plan("data=text", *words)
    labels = [label(mine, {"data.paths": value}) for value in mine.axes[0].options]
    assert len(set(labels)) == 2
    assert not any("s3cret" in text or "h1dden" in text for text in labels)
