"""Each command has help and examples, and a job that takes what a command line says."""

import importlib
import inspect

import pytest

from llm.cli.main import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_has_help_and_a_job(verb):
    told = importlib.import_module(f"llm.cli.{verb}")
    assert told.ABOUT
    assert told.EXAMPLES
    job = importlib.import_module(f"llm.jobs.{verb}")
    assert list(inspect.signature(job.run).parameters) == ["composed"]
