import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.sampling.order import BLOCK, SampleOrder, accumulation, micro_batch, mix, permute
from llm.errors import ConfigError

KEYS = st.integers(0, 2**64 - 1)


def keys(value: int, size: int) -> np.ndarray:
    return np.full(size, value, np.uint64)


@given(st.integers(1, 3000), KEYS)
def test_each_key_names_a_permutation(size: int, key: int) -> None:
    found = permute(np.arange(size), size, keys(key, size))
    assert np.array_equal(np.sort(found), np.arange(size))


@given(st.integers(2**20, 2**45), KEYS, st.data())
def test_large_permutations_stay_inside_and_apart(size: int, key: int, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=50, unique=True)))
    found = permute(index, size, keys(key, len(index)))
    assert found.min() >= 0
    assert found.max() < size
    assert len(set(found.tolist())) == len(index)


def test_permutations_look_drawn_by_lot() -> None:
    size, count = 30, 1500
    landed = np.zeros((size, size))
    follows = 0
    for key in mix(np.arange(count, dtype=np.uint64)):
        found = permute(np.arange(size), size, keys(int(key), size))
        landed[np.arange(size), found] += 1
        follows += int((np.diff(found) == 1).sum())
    expected = count / size
    chi_squared = ((landed - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * (2 * freedom) ** 0.5
    # A uniform permutation has (size - 1) / size successors that follow each other.
    assert follows / count == pytest.approx((size - 1) / size, abs=0.08)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 30), st.integers(0, 2**32), st.integers(0, 4))
def test_each_window_is_taken_once_an_epoch(n_windows: int, length: int, seed: int, epoch: int) -> None:
    n_tokens = n_windows * length + 1 + seed % length
    order = SampleOrder(n_tokens, length, seed)
    assert order.size == n_windows
    starts = order.starts(np.arange(epoch * n_windows, (epoch + 1) * n_windows))
    assert starts.min() >= 0
    assert starts.max() + length + 1 <= n_tokens
    shift = int(starts.min())
    expected = np.minimum(np.arange(n_windows) * length + shift, n_tokens - 1 - length)
    assert np.array_equal(np.sort(starts), expected)
    assert shift < length
    if epoch == 0:
        assert shift == 0


def test_epochs_and_seeds_differ_in_order_and_place() -> None:
    first, second = SampleOrder(10_001, 10, 1), SampleOrder(10_001, 10, 2)
    epochs = [first.starts(np.arange(number * 1000, (number + 1) * 1000)) for number in range(6)]
    assert not any(np.array_equal(epochs[0], other) for other in epochs[1:])
    assert len({int(starts.min()) for starts in epochs}) > 2
    assert not np.array_equal(epochs[0], second.starts(np.arange(1000)))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=20), st.integers(1, 40))
def test_a_sample_does_not_depend_on_what_was_asked_before(samples: list[int], count: int) -> None:
    order = SampleOrder(70_000, 13, 5)
    for first in samples:
        asked = np.arange(first, first + count)
        assert np.array_equal(order.starts(asked), SampleOrder(70_000, 13, 5).starts(asked))
    scattered = np.array(samples)
    one_by_one = [order.starts(np.array([sample]))[0] for sample in samples]
    assert np.array_equal(order.starts(scattered), one_by_one)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_global_batch_is_the_same_however_it_is_shared_out(
    step: int, micro_size: int, steps: int, world: int
) -> None:
    shares = {"batch_size": micro_size * steps * world, "micro_batch_size": micro_size, "world_size": world}
    assert accumulation(shares["batch_size"], micro_size, world) == steps
    parts = [micro_batch(step, micro, rank, **shares) for micro in range(steps) for rank in range(world)]
    expected = np.arange(step * shares["batch_size"], (step + 1) * shares["batch_size"])
    assert np.array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize(
    ("batch", "micro", "world"), [(32, 5, 1), (32, 8, 3), (4, 8, 1), (0, 1, 1), (8, 0, 1)]
)
def test_what_can_not_be_shared_out_is_named(batch: int, micro: int, world: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.batch_size={batch}"):
        accumulation(batch, micro, world)
