"""Sweeps whose values Optuna chooses; no job is trained here."""

import importlib.util

import pytest

from llm.cli.overrides import split_words
from llm.cli.search import search
from llm.cli.sweep import read_plan
from llm.errors import ConfigError

SETTINGS = {"sampler": "tpe", "trials": 25, "goal": "minimize", "seed": 7}
needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None,
    reason="hydra-optuna-sweeper is not installed",
)


def chosen(words, judge, **settings):
    jobs = []

    def run(values):
        jobs.append(values)
        return judge(values)

    search(read_plan(split_words(["-m", *words])), SETTINGS | settings, run)
    return jobs


@needs_optuna
def test_it_finds_the_best_and_chooses_the_same_again():
    words = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "model=nano,gpt_nano", "seed=range(3,6)"]

    def judge(values):
        away = abs(float(values["optimizer.lr"]) - 0.01) / 0.01
        return away + (values["model"] == "gpt_nano") + abs(int(values["seed"]) - 5)

    jobs = chosen(words, judge)
    assert len(jobs) == 25
    assert {job["model"] for job in jobs} == {"nano", "gpt_nano"}
    assert {job["seed"] for job in jobs} == {"3", "4", "5"}
    assert all(1e-4 <= float(job["optimizer.lr"]) <= 1e-1 for job in jobs)
    late = sum(map(judge, jobs[15:])) / 10
    early = sum(map(judge, jobs[:10])) / 10
    assert late < early
    assert chosen(words, judge) == jobs


@needs_optuna
def test_values_of_any_text_come_through():
    jobs = chosen(["init_from=runs/a, b", "init_from=c=d(e)"], lambda _: 0.0, trials=8)
    assert {job["init_from"] for job in jobs} == {"runs/a, b", "c=d(e)"}


@needs_optuna
def test_jobs_that_fail_are_passed_over():
    assert len(chosen(["seed=1,2"], lambda _: None, trials=3)) == 3
    assert len(chosen(["seed=1,2"], lambda v: 1.0 if v["seed"] == "1" else None, trials=5)) == 5


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\.\[optuna\]"):
        chosen(["seed=1,2"], lambda _: 0.0)
