"""Texts and labels: one target a text, at the position that tells of all of it."""

import numpy as np
import pytest

from llm.data.collators.base import Setting
from llm.data.collators.labels import NumberCollator, TextLabelCollator
from llm.data.collators.pairs import Pair
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError, DataError
from llm.model import ModelConfig
from llm.model.mask import PADDING
from llm.tokenizer import ByteSpec

TOKENIZER = ByteSpec().build()
END = TOKENIZER.end_of_text


def collator(architecture, context_length=64):
    config = ModelConfig(architecture=architecture, context_length=context_length, labels=("bad", "good"))
    return TextLabelCollator(Setting(TOKENIZER, 0, config))


def pair(text, label):
    return Pair(*(np.array([*TOKENIZER.encode(side), END]) for side in (text, label)))


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_a_text_is_scored_where_all_of_it_is_seen(architecture):
    batch = collator(architecture)([pair("abc", "good"), pair("a longer text", "bad")], np.arange(2))
    assert batch.targets_bk.tolist() == [[1], [0]]
    assert batch.tokens_bt[0, :5].tolist() == [END, *TOKENIZER.encode("abc"), END]
    assert batch.documents_bt[0].tolist() == [0] * 5 + [PADDING] * 27
    assert batch.positions_bk.tolist() == ([[0], [0]] if architecture == "encoder" else [[4], [14]])


def test_a_long_text_is_told_by_its_beginning():
    batch = collator("decoder", 16)([pair("x" * 100, "bad")], np.arange(1))
    assert batch.tokens_bt.shape == (1, 16)
    assert batch.tokens_bt[0].tolist() == [END, *TOKENIZER.encode("x" * 14), END]


def test_a_text_of_nothing_has_no_target():
    nothing = Pair(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert collator("encoder")([nothing], np.array([-1])).targets_bk.tolist() == [[IGNORED]]


@pytest.mark.parametrize("labels", [("bad", "good"), (" bad", " good")])
def test_the_space_that_wordpiece_sets_before_a_word_is_not_of_the_label(labels):
    config = ModelConfig(architecture="encoder", labels=labels)
    batch = TextLabelCollator(Setting(TOKENIZER, 0, config))([pair("abc", " good")], np.arange(1))
    assert batch.targets_bk.tolist() == [[1]]


def test_a_label_that_was_never_seen_is_named():
    with pytest.raises(
        DataError, match="the label 'fair', which the model never saw in training: it knows bad, good"
    ):
        collator("encoder")([pair("a", "fair")], np.arange(1))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labels": ("a", "a")}, "must be distinct"),
        ({"labels": ("a", 1)}, "must be a list of texts"),
        (
            {"labels": ("a", "b"), "architecture": "encoder_decoder"},
            "is for architecture=encoder and decoder",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**keys)


def test_a_label_that_is_no_number_is_refused():
    config = ModelConfig(architecture="encoder", labels=("number",), labelled="number")
    with pytest.raises(DataError, match="needs a number"):
        NumberCollator(Setting(TOKENIZER, 0, config))([pair("a", "nan")], np.arange(1))
