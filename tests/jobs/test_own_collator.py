"""A collator of somebody's own: one made from ours, and what another is told that it lacks before anything is trained."""

import pytest

from llm.build import corpora, tasks
from llm.data.collators import PreferenceCollator
from llm.errors import ConfigError
from llm.model import ModelConfig


class Half:
    """Has no `given` and no `work`."""

    marks, most, cut = (), None, None

    def __init__(self, setting) -> None:
        pass


def test_what_it_lacks_is_named(monkeypatch):
    monkeypatch.setattr(tasks, "collator_class", lambda config: Half)
    config = {"seed": 1, "task": {"collator": {"_target_": "mine.Half"}}}
    with pytest.raises(ConfigError, match="Half has no given, work"):
        tasks.collator(config, None, ModelConfig(vocab_size=8))


class Mine(PreferenceCollator):
    """Ours, under another name."""


def test_one_made_from_ours_reads_the_same(monkeypatch):
    monkeypatch.setattr(corpora, "collator_class", lambda config: Mine)
    data = {"_target_": "llm.data.sources.PreferenceLines", "paths": ["a.jsonl"]}
    assert corpora.source(data, {"packages": [], "task": {"template": "chatml"}}).preferences
