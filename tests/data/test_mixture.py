"""Mixtures: exact shares at every point, samples that follow from their number alone, sources that end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data import prepare
from llm.data.collate import CausalCollator, Setting
from llm.data.mixture import Interleaving, MixedSamples, Mixture, Share, open_text
from llm.data.module import CorpusDataModule
from llm.data.pairs import Pairs
from llm.data.sources import TextFiles
from llm.data.windows import Windows
from llm.errors import ConfigError, DataError
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec

WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=5)


@given(WEIGHTS, st.integers(1, 3000))
def test_after_any_number_of_samples_each_source_has_its_share(weights, n):
    sources, _ = Interleaving(weights, [None] * len(weights)).place(np.arange(n))
    had = np.bincount(sources, minlength=len(weights))
    wanted = n * np.array(weights) / sum(weights)
    assert np.abs(had - wanted).max() <= 1 + 0.5 * len(weights)


@given(WEIGHTS, st.integers(0, 2**38))
def test_a_source_gives_its_own_samples_in_order_wherever_one_looks(weights, start):
    order = Interleaving(weights, [None] * len(weights))
    sources, numbers = order.place(np.arange(start, start + 300))
    for source in range(len(weights)):
        own = numbers[sources == source]
        assert (np.diff(own) == 1).all()
    # One sample alone is what it is among others.
    alone = [order.place(np.array([sample])) for sample in range(start, start + 300, 37)]
    assert [int(source[0]) for source, _ in alone] == sources[::37].tolist()
    assert [int(number[0]) for _, number in alone] == numbers[::37].tolist()


def test_every_sample_of_a_source_is_taken_from_its_first_on():
    order = Interleaving([2.0, 1.0, 1.0], [None] * 3)
    sources, numbers = order.place(np.arange(1000))
    for source in range(3):
        own = numbers[sources == source]
        assert own.tolist() == list(range(len(own)))


@given(st.lists(st.tuples(st.floats(0.05, 20), st.integers(1, 400)), min_size=2, max_size=4))
def test_a_source_ends_after_its_epochs_and_the_others_go_on(parts):
    weights, limits = [weight for weight, _ in parts], [limit for _, limit in parts]
    order = Interleaving(weights, limits)
    assert order.length == sum(limits)
    sources, numbers = order.place(np.arange(order.length))
    for source, limit in enumerate(limits):
        assert sorted(numbers[sources == source].tolist()) == list(range(limit))
    endless = Interleaving(weights, [*limits[:-1], None])
    assert endless.length is None
    alone = endless.phases[-1].start
    sources, _ = endless.place(np.arange(alone))
    assert np.bincount(sources, minlength=len(limits))[:-1].tolist() == limits[:-1]
    assert (endless.place(np.arange(alone, alone + 99))[0] == len(limits) - 1).all()


def test_while_a_source_has_ended_the_others_keep_their_weights():
    order = Interleaving([1.0, 2.0, 6.0], [30, None, None])
    sources, _ = order.place(np.arange(100_000))
    late = np.bincount(sources[50_000:], minlength=3)
    assert late[0] == 0
    assert abs(late[2] - 3 * late[1]) <= 8


@pytest.fixture
def mixture(write, tmp_path):
    texts = {"cats": "The cat sat on the mat. ", "dogs": "A dog ran in the fog! "}
    corpora = {}
    for name, text in texts.items():
        folder = write({f"{n:02d}.txt": f"{name} {n}: " + text * (10 + n) for n in range(50)}, name)
        corpora[name] = prepare(TextFiles([f"{folder}/*.txt"]), ByteSpec(), tmp_path / "shards")
    return Mixture(corpora, {"cats": Share(3.0), "dogs": Share(1.0)})


def module(mixture, length=16, batch_size=12):
    collate = CausalCollator(Setting(mixture.tokenizer, 0, ModelConfig(context_length=length)))
    sizes = {"context_length": length, "batch_size": batch_size, "micro_batch_size": 3, "seed": 0}
    return CorpusDataModule(mixture, collate, **sizes)


def test_a_sample_is_the_window_of_its_source(mixture):
    mixed = mixture.train.cut(Windows, 16, 7)
    alone = [stream.cut(Windows, 16, 7) for stream in mixture.train.streams.values()]
    samples = np.arange(5 * mixed.size)
    sources, numbers = mixed.order.place(samples)
    windows = mixed.samples(samples)
    for source, view in enumerate(alone):
        assert np.array_equal(windows[sources == source], view.samples(numbers[sources == source]))
    assert np.bincount(sources)[0] == pytest.approx(3 * np.bincount(sources)[1], abs=4)


def test_every_held_out_token_of_every_source_is_a_target_once(mixture):
    mixed = mixture.validation.cut(Windows, 16, 0)
    numbers = np.arange(mixed.n_held_out)
    windows = mixed.held_out(numbers)
    sources, _ = mixed.held_out_places(numbers)
    for source, stream in enumerate(mixture.validation.streams.values()):
        targets = windows[sources == source][:, 1:]
        assert targets[targets >= 0].tolist() == stream.tokens[1:].tolist()
    assert (mixed.held_out(np.array([-1]))[:, 1:] < 0).all()


def test_batches_go_on_from_any_step(mixture):
    whole = module(mixture)
    batches = whole.train_dataloader()
    expected = [batch.tokens_bt for batch, _ in zip(batches, range(40), strict=False)]
    resumed = module(mixture)
    resumed.consumed = 5 * 12
    found = [batch.tokens_bt for batch, _ in zip(resumed.train_dataloader(), range(20), strict=False)]
    assert all((a == b).all() for a, b in zip(found, expected[20:], strict=True))


def test_its_record_opens_it_again_and_its_fingerprint_tells_its_shares(mixture):
    again = open_text(mixture.record())
    assert again.fingerprint == mixture.fingerprint
    assert open_text(mixture.parts["cats"].record()).fingerprint == mixture.parts["cats"].fingerprint
    other = Mixture(mixture.parts, {**mixture.shares, "dogs": Share(2.0)})
    assert other.fingerprint != mixture.fingerprint


def test_what_cannot_be_mixed_is_refused(mixture):
    with pytest.raises(ConfigError, match="plain text"):
        mixture.train.cut(Pairs, 16, 0)
    with pytest.raises(DataError, match=r"data\.sources\.\w+: its training text is shorter"):
        module(mixture, length=10**6)
    ends = MixedSamples(
        {name: stream.cut(Windows, 16, 0) for name, stream in mixture.train.streams.items()},
        {"cats": Share(1.0, 2), "dogs": Share(1.0, 0.5)},
    )
    ends.require(ends.size)
    with pytest.raises(ConfigError, match="leave one source without epochs"):
        ends.require(ends.size + 1)
