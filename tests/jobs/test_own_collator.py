"""A collator of somebody's own: one made from ours, and what another is told that it lacks before anything is trained."""

from types import SimpleNamespace

import pytest

from llm.build import corpora, nodes, tasks
from llm.data.collators import CausalCollator, PreferenceCollator
from llm.data.collators.base import Work
from llm.data.sampling.windows import Windows
from llm.errors import ConfigError
from llm.jobs import outlook
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec


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


MIXTURE = {
    "packages": [],
    "data": {"_target_": "llm.data.mixture.Mixed", "sources": {"a": {}}},
    "task": {"collator": {"_target_": "mine.Own"}},
}


class Silent:
    """Says nothing of mixtures."""


class Mixing:
    """Says that it mixes."""

    mixes = True


def either() -> Silent | Mixing:
    """One of both."""
    return Mixing()


def one() -> Mixing:
    """One that mixes."""
    return Mixing()


def unsaid():
    """What it makes is not said."""
    return Mixing()


@pytest.mark.parametrize("make", [Silent, either, unsaid])
def test_one_that_does_not_say_that_it_mixes_is_told_how(monkeypatch, make):
    monkeypatch.setattr(nodes, "collator_class", lambda config: make)
    with pytest.raises(ConfigError, match=r"mine\.Own makes no batches of several sources.*`mixes = True`"):
        corpora.check_mixes(MIXTURE)


@pytest.mark.parametrize("make", [Mixing, one])
def test_one_that_says_that_it_mixes_does(monkeypatch, make):
    monkeypatch.setattr(nodes, "collator_class", lambda config: make)
    corpora.check_mixes(MIXTURE)


def test_one_that_mixes_nothing_takes_data_of_one_source(monkeypatch):
    monkeypatch.setattr(nodes, "collator_class", lambda config: Silent)
    corpora.check_mixes({**MIXTURE, "data": {"_target_": "llm.data.sources.StandardLibrary"}})


class Other:
    """Cuts a stream into what are no samples."""

    def cut(self, stream, length, seed):
        return [stream]


def test_one_that_cuts_no_samples_is_told_what_they_derive_from():
    stream = SimpleNamespace(cut=lambda by, length, seed: by("a text", length, seed))
    with pytest.raises(ConfigError, match=r"the cut of Other gives list, .*SampleView"):
        tasks.view_of(Other(), stream, 8, 0)


class OwnWindows(Windows):
    """Ours, under another name."""


class LastWord(CausalCollator):
    """Scores one token of a window."""

    cut = OwnWindows

    def window_work(self, length):
        return Work(length, length, 1)


def test_one_of_windows_says_what_they_take_before_there_is_a_text(monkeypatch):
    monkeypatch.setattr(tasks, "collator_class", lambda config: LastWord)
    config = {"seed": 1, "task": {"collator": {"_target_": "mine.LastWord"}}}
    nothing, origin = outlook.Text(None, None), SimpleNamespace(tokenizer=ByteSpec())
    load, _ = outlook._samples(config, origin, nothing, ModelConfig(context_length=32))
    assert load.work == load.most == Work(32, 32, 1)
