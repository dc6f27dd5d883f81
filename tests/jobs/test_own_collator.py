"""A collator of somebody's own: one made from ours, and what another is told that it lacks before anything is trained."""

from types import SimpleNamespace

import pytest

from llm.build import corpora, tasks
from llm.data.collators import CausalCollator, PreferenceCollator
from llm.data.collators.base import TokenCounts
from llm.data.mixture import MixedStream, SourceShare, samples_of
from llm.data.sampling.windows import Windows
from llm.errors import ConfigError
from llm.jobs import outlook
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec


def naming(collator: str) -> dict:
    """The config of a task whose collator is a class of this module, opened as a package of one's own."""
    target = f"{__name__}.{collator}"
    return {
        "seed": 1,
        "packages": [__name__],
        "task": {"template": "chatml", "collator": {"_target_": target}},
    }


class Half:
    """Has no `given` and no `mean_tokens`."""

    extra_fields, longest_tokens, samples = (), None, None

    def __init__(self, setting) -> None:
        pass


def test_what_it_lacks_is_named():
    with pytest.raises(ConfigError, match="Half has no given, mean_tokens"):
        tasks.collator(naming("Half"), None, ModelConfig(vocab_size=8))


class Mine(PreferenceCollator):
    """Ours, under another name."""


def test_one_made_from_ours_reads_the_same():
    data = {"_target_": "llm.data.sources.PreferenceLines", "paths": ["a.jsonl"]}
    assert corpora.source(data, naming("Mine")).preferences


MIXTURE = {"data": {"_target_": "llm.data.mixture.Mixed", "sources": {"a": {}}}}


class Silent:
    """Says nothing of mixtures."""


class Mixing:
    """Says that it mixes."""

    mixes = True


def test_one_that_does_not_say_that_it_mixes_is_told_how():
    with pytest.raises(ConfigError, match=r"\.Silent makes no batches of several sources.*`mixes = True`"):
        corpora.check_mixes(naming("Silent") | MIXTURE)


def test_one_that_says_that_it_mixes_does():
    corpora.check_mixes(naming("Mixing") | MIXTURE)


def test_one_that_mixes_nothing_takes_data_of_one_source():
    data = {"_target_": "llm.data.sources.StandardLibrary"}
    corpora.check_mixes(naming("Silent") | {"data": data})


class Other:
    """Makes of a stream what are no samples."""

    def samples(self, stream, length, seed):
        return [stream]


def test_one_that_makes_no_samples_is_told_what_they_derive_from():
    for stream in ("a text", MixedStream({"a": "a text"}, {"a": SourceShare()})):
        with pytest.raises(ConfigError, match=r"the samples of Other are list, .*SampleView"):
            samples_of(Other(), stream, 8, 0)


class Earlier(CausalCollator):
    """Has its own windows, by the names of an earlier version."""

    cut, window_work = Windows, None


def test_one_of_an_earlier_version_is_told_the_new_names():
    with pytest.raises(
        ConfigError, match=r"Earlier .*: cut is samples now, window_work is window_tokens now"
    ):
        tasks.collator(naming("Earlier"), None, ModelConfig(vocab_size=8))


class EarlierSetting(CausalCollator):
    """Reads the model's config by the name of an earlier version."""

    def __init__(self, setting):
        self.longest = setting.shape.context_length


def test_one_that_reads_a_setting_of_an_earlier_version_is_told_the_new_name():
    with pytest.raises(ConfigError, match=r"task\.collator: .*Setting: shape is model_config now"):
        tasks.collator(naming("EarlierSetting"), None, ModelConfig(vocab_size=8))


class OwnWindows(Windows):
    """Ours, under another name."""


class LastWord(CausalCollator):
    """Scores one token of a window."""

    samples = OwnWindows

    def window_tokens(self, length):
        return TokenCounts(length, length, 1)


def test_one_of_windows_says_what_they_take_before_there_is_a_text():
    nothing, origin = outlook.Text(None, None), SimpleNamespace(tokenizer=ByteSpec())
    cost, _ = outlook._samples(naming("LastWord"), origin, nothing, ModelConfig(context_length=32))
    assert cost.mean == cost.longest == TokenCounts(32, 32, 1)
