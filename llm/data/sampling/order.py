"""The order of samples: a pure function of (seed, step, global batch), in O(1) memory, and how a batch is shared out.

Shapes: n samples.
"""

import numpy as np
import numpy.typing as npt

from llm.errors import ConfigError

ROUNDS = 6
BLOCK = 1 << 12
UInts = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


def mix(values: UInts) -> UInts:
    """A bijection of uint64 that scatters neighbours: the finalizer of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        values = values + _GOLDEN
        values = (values ^ (values >> np.uint64(30))) * _MIX_A
        values = (values ^ (values >> np.uint64(27))) * _MIX_B
    return values ^ (values >> np.uint64(31))


def permute(index: np.ndarray, size: int, key: UInts) -> np.ndarray:
    """Where `index` (n,), each below `size`, stands in the permutation of range(size) that its `key` (n,) names.

    A Feistel network over a rectangle of about `size` cells (Black and Rogaway, 2002): each round shifts one
    coordinate by a hash of the other. Whatever lands past `size` goes through again until it lands inside.
    """
    width = np.uint64(int(np.ceil(np.sqrt(size))))
    height = np.uint64(-(-size // int(width)))
    result = _shuffle(index.astype(np.uint64), width, height, key)
    while (outside := np.flatnonzero(result >= size)).size:
        result[outside] = _shuffle(result[outside], width, height, key[outside])
    return result.astype(np.int64)


def _shuffle(value: UInts, width: np.uint64, height: np.uint64, key: UInts) -> UInts:
    row, column = value // width, value % width
    for number in range(ROUNDS):
        key = mix(key + np.uint64(number))
        column = (column + mix(row ^ key) % width) % width
        row = (row + mix(column + key) % height) % height
    return row * width + column


class EpochOrder:
    """The infinite sequence of `size` things, each once an epoch, in an order of the epoch's own."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._seed = mix(np.array([seed % 2**64], np.uint64))

    def shuffled(self, indices: np.ndarray) -> np.ndarray:
        """Which of them (n,) the samples of these indices (n,) are."""
        return permute(indices % self.size, self.size, self.keys(indices))

    def keys(self, indices: np.ndarray) -> UInts:
        """What the order of each sample's epoch follows from (n,)."""
        return mix(self._seed ^ (indices // self.size).astype(np.uint64))


class SampleOrder:
    """The infinite sequence of windows of `length` inputs over a stream of `n_tokens`.

    Sample j is window permute(j % n) of epoch j // n, n = (n_tokens - 1) // length. Epoch 0 starts at the
    first token and later ones at a token of their own, below `length`, so that windows don't always begin
    at the same places; a last window that would run over the end is moved back to it.
    """

    def __init__(self, n_tokens: int, length: int, seed: int) -> None:
        self.length = length
        self.size = (n_tokens - 1) // length
        self._last = n_tokens - 1 - length
        self._order = EpochOrder(self.size, seed)
        self._block = (-1, np.zeros(0, np.int64))

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """The position (n,) of the first token of the samples of these indices (n,)."""
        block, low = int(indices[0]) // BLOCK, int(indices[0]) % BLOCK
        if int(indices[-1]) - int(indices[0]) != len(indices) - 1 or low + len(indices) > BLOCK:
            return self._compute(indices)
        if self._block[0] != block:
            self._block = block, self._compute(np.arange(block * BLOCK, (block + 1) * BLOCK))
        return self._block[1][low : low + len(indices)]

    def _compute(self, indices: np.ndarray) -> np.ndarray:
        shifts = mix(~self._order.keys(indices)) % np.uint64(self.length)
        shift = np.where(indices >= self.size, shifts, 0).astype(np.int64)
        return np.minimum(self._order.shuffled(indices) * self.length + shift, self._last)


def accumulation(batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """How many micro-batches each process takes before an update; ConfigError where they don't come out even."""
    if min(batch_size, micro_batch_size) < 1:
        raise ConfigError(
            f"data.batch_size={batch_size} and data.micro_batch_size={micro_batch_size} must be at least 1."
        )
    steps, rest = divmod(batch_size, micro_batch_size * world_size)
    if rest or not steps:
        raise ConfigError(
            f"data.batch_size={batch_size} (sequences in a global batch) can't be shared out: it must be a multiple of "
            f"data.micro_batch_size={micro_batch_size} times {world_size} processes = {micro_batch_size * world_size}."
        )
    return steps


def micro_batch(
    step: int, micro: int, rank: int, *, batch_size: int, micro_batch_size: int, world_size: int
) -> np.ndarray:
    """The indices of the samples (n,) of micro-batch `micro` of `step` in process `rank`."""
    first = step * batch_size + (micro * world_size + rank) * micro_batch_size
    return np.arange(first, first + micro_batch_size)
