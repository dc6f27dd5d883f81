"""Mixtures: exact shares at every point, samples that follow from their number alone, sources that end."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data import prepare
from llm.data.collators.base import Setting, measure_samples
from llm.data.collators.causal import CausalCollator
from llm.data.collators.pairs import PairCollator
from llm.data.mixture import Interleaving, MixedView, Mixture, SourceShare, open_text, samples_of
from llm.data.module import CorpusDataModule
from llm.data.sampling.turns import Turns
from llm.data.sampling.windows import Windows
from llm.data.sources import JsonLines, TextFiles
from llm.errors import ConfigError, DataError
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec

CAUSAL = CausalCollator(Setting(ByteSpec().build(()), 0, ModelConfig()))
WEIGHTS = st.lists(st.floats(0.1, 10), min_size=1, max_size=5)


def shares_of(weights):
    """Whole numbers in the ratio of the weights as they are written."""
    parts = [Fraction(str(weight)) for weight in weights]
    return [int(part * math.lcm(*(other.denominator for other in parts))) for part in parts]


def check_shares(order, weights, start, count):
    """From `start` on each sample is its source's next, and leaves all sources within one sample of their share."""
    shares, had = shares_of(weights), order.counts(start).tolist()
    total = sum(shares)
    assert sum(had) == start
    sources, own = order.place(np.arange(start, start + count))
    for n, (source, number) in enumerate(zip(sources.tolist(), own.tolist(), strict=True), start + 1):
        assert number == had[source]
        had[source] += 1
        assert all(abs(count * total - n * share) < total for count, share in zip(had, shares, strict=True))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=24), st.integers(0, 2**40))
def test_at_no_point_is_a_source_a_sample_away_from_its_share(weights, block):
    order = Turns(weights)
    check_shares(order, weights, 0, 400)
    check_shares(order, weights, max(0, block * order.block - 200), 400)  # over the end of a block


@pytest.mark.parametrize(
    "weights", [[0.1, 0.2, 0.7], [1, 1e-4], [1 / 3, 2 / 3, 0.15, 5e-3], [1.0] * 20 + [60.5]]
)
def test_shares_of_any_kind_are_exact_over_blocks(weights):
    order = Turns(weights)
    check_shares(order, weights, 0, 9000)
    for source in range(len(weights)):
        at = order.find(source, 2)
        assert [int(part[0]) for part in order.place(np.array([at]))] == [source, 2]
        assert order.counts(at + 1)[source] == 3


@settings(max_examples=25)
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


@settings(max_examples=25)
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
    return Mixture(corpora, {"cats": SourceShare(3.0), "dogs": SourceShare(1.0)})


def module(mixture, length=16, batch_size=12):
    collate = CausalCollator(Setting(mixture.tokenizer, 0, ModelConfig(context_length=length)))
    samples = [samples_of(collate, stream, length, 0) for stream in (mixture.train, mixture.validation)]
    return CorpusDataModule(mixture, collate, *samples, batch_size=batch_size, micro_batch_size=3)


def test_a_sample_is_the_window_of_its_source(mixture):
    mixed = samples_of(CAUSAL, mixture.train, 16, 7)
    alone = [Windows(stream, 16, 7) for stream in mixture.train.streams.values()]
    samples = np.arange(5 * mixed.size)
    sources, numbers = mixed.order.place(samples)
    windows = mixed.training(samples)
    for source, view in enumerate(alone):
        assert np.array_equal(windows[sources == source], view.training(numbers[sources == source]))
    assert np.bincount(sources)[0] == pytest.approx(3 * np.bincount(sources)[1], abs=4)


def test_every_held_out_token_of_every_source_is_a_target_once(mixture):
    mixed = samples_of(CAUSAL, mixture.validation, 16, 0)
    numbers = np.arange(mixed.n_in_order)
    windows = mixed.in_order(numbers)
    sources, _ = mixed.place_in_order(numbers)
    for source, stream in enumerate(mixture.validation.streams.values()):
        targets = windows[sources == source][:, 1:]
        assert targets[targets >= 0].tolist() == stream.tokens[1:].tolist()
    assert (mixed.in_order(np.array([-1]))[:, 1:] < 0).all()


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
    assert open_text(mixture.corpora["cats"].record()).fingerprint == mixture.corpora["cats"].fingerprint
    other = Mixture(mixture.corpora, {**mixture.shares, "dogs": SourceShare(2.0)})
    assert other.fingerprint != mixture.fingerprint


@pytest.fixture
def pairs(write, tmp_path):
    """A mixture of two sources of pairs, one with longer targets, and what collates it."""
    corpora = {}
    for name, count in {"short": 1, "long": 16}.items():
        lines = [{"source": f"{name} {n}", "target": f"{n} " * count} for n in range(60)]
        folder = write({"a.jsonl": "\n".join(map(json.dumps, lines))}, name)
        source = JsonLines([f"{folder}/a.jsonl"], text="source", label="target", validation_share=0.2)
        corpora[name] = prepare(source, ByteSpec(), tmp_path / "shards")
    mixed = Mixture(corpora, {"short": SourceShare(3.0), "long": SourceShare(1.0)})
    return mixed, PairCollator(Setting(mixed.tokenizer, 0, ModelConfig(context_length=64)))


def test_pairs_are_mixed_as_windows_are(pairs):
    mixture, collate = pairs
    mixed = samples_of(collate, mixture.train, 64, 7)
    alone = [collate.samples(stream, 64, 7) for stream in mixture.train.streams.values()]
    samples = np.arange(3 * mixed.size)
    sources, numbers = mixed.order.place(samples)
    for pair, source, number in zip(mixed.training(samples), sources, numbers, strict=True):
        (own,) = alone[source].training(np.array([number]))
        assert [side.tolist() for side in pair] == [side.tolist() for side in own]
    lengths = [len(pair.target_k) for pair in mixed.training(samples)]
    assert mixed.n_targets(samples).tolist() == lengths
    # Each source's average counts by its weight, which is what training sees.
    assert measure_samples(collate, mixed).mean.inputs == pytest.approx(np.mean(lengths), rel=0.05)
    scored = samples_of(collate, mixture.validation, 64, 0)
    first, last, none = scored.in_order(np.array([0, scored.n_in_order - 1, -1]))
    assert [mixture.tokenizer.decode(pair.source_s[:5].tolist()) for pair in (first, last)] == [
        "short",
        "long ",
    ]
    assert len(none.source_s) == 0


def test_what_a_mixture_takes_is_that_of_each_source_by_its_weight_and_of_the_longest(pairs):
    mixture, collate = pairs
    mixed = samples_of(collate, mixture.train, 64, 7)
    found = measure_samples(collate, mixed)
    short, long = (measure_samples(collate, part.view) for part in mixed.weighted_views)
    expected = [(3 * one + other) / 4 for one, other in zip(short.mean, long.mean, strict=True)]
    assert list(found.mean) == pytest.approx(expected)
    assert found.mean.inputs < long.mean.inputs / 2
    assert found.longest == long.longest != short.longest
    assert found.extra_fields == collate.extra_fields


def test_alike_sources_take_what_each_takes_whatever_their_weights(mixture):
    collate = module(mixture).collate
    views = {name: Windows(stream, 17, 0) for name, stream in mixture.train.streams.items()}
    mixed = MixedView(views, {"cats": SourceShare(0.1), "dogs": SourceShare(0.7)})
    # The plan reads first batches where the longest sample differs from the average one.
    assert measure_samples(collate, mixed) == measure_samples(collate, views["cats"])
    assert measure_samples(collate, mixed).mean == measure_samples(collate, mixed).longest


def test_a_batch_of_mixed_pairs_is_divided_by_the_targets_of_its_step(pairs):
    mixture, collate = pairs
    samples = [samples_of(collate, stream, 64, 0) for stream in (mixture.train, mixture.validation)]
    data = CorpusDataModule(mixture, collate, *samples, batch_size=8, micro_batch_size=4)
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(2), strict=False)]
    targets = sum(int((batch.targets_bk >= 0).sum()) for batch in batches)
    assert [batch.divisor.item() for batch in batches] == [targets / 2] * 2


def test_what_cannot_be_mixed_is_refused(mixture):
    with pytest.raises(DataError, match=r"data\.sources\.\w+: its training text is shorter"):
        _ = samples_of(CAUSAL, mixture.train, 10**6, 0).size
    ends = MixedView(
        {name: Windows(stream, 16, 0) for name, stream in mixture.train.streams.items()},
        {"cats": SourceShare(1.0, 2), "dogs": SourceShare(1.0, 0.5)},
    )
    ends.require(ends.size)
    with pytest.raises(ConfigError, match="leave one source without epochs"):
        ends.require(ends.size + 1)
