"""A collator of somebody's own is told what it lacks before anything is trained."""

import pytest

from llm.build import tasks
from llm.errors import ConfigError
from llm.model import ModelConfig


class Half:
    """Has no `given` and no `work`."""

    marks, most, view = (), None, None

    def __init__(self, setting) -> None:
        pass


def test_what_it_lacks_is_named(monkeypatch):
    monkeypatch.setattr(tasks, "collator_class", lambda config: Half)
    config = {"seed": 1, "task": {"collator": {"_target_": "mine.Half"}}}
    with pytest.raises(ConfigError, match="Half has no given, work"):
        tasks.collator(config, None, ModelConfig(vocab_size=8))
