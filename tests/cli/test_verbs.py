"""Each command has help and examples, and a job that takes what a command line says."""

import importlib
import inspect
import os
import signal

import pytest

from llm.cli.about import ABOUT
from llm.cli.main import VERBS, main


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_has_help_and_a_job(verb):
    about = ABOUT[verb]
    assert about.summary
    assert about.text
    assert about.examples
    job = importlib.import_module(f"llm.jobs.{verb}")
    assert list(inspect.signature(job.run).parameters) == ["composed"]


def test_help_speaks_of_no_other_command():
    assert tuple(ABOUT) == VERBS


def test_the_first_process_of_a_container_is_ended_by_sigterm_from_the_start(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr("llm.cli.main._run", lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(SystemExit, match="143"):
            main(["serve"])
    finally:
        signal.signal(signal.SIGTERM, before)
