"""What comes again among hashes that lie on disk, a piece after the other, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Bound of memory: hashes sorted at once, 32 bytes each while it lasts.
HASHES_AT_ONCE = 1 << 22
# Reads a piece's hashes, uint64; 0 stands for what can't be a repeat.
Read = Callable[[], np.ndarray]


def find_repeats(pieces: Sequence[Read], at_once: int = HASHES_AT_ONCE) -> np.ndarray:
    """Which hashes repeat an earlier one, as sorted numbers counted over all pieces."""
    return np.sort(np.concatenate(list(repeats_by_part(pieces, at_once))))


def repeats_by_part(pieces: Sequence[Read], at_once: int = HASHES_AT_ONCE) -> Iterator[np.ndarray]:
    """The same numbers, those of one part of all hashes at a time."""
    parts = 1 + sum(len(read()) for read in pieces) // at_once
    return (_repeats(pieces, part, parts) for part in range(parts))


def _repeats(pieces: Sequence[Read], part: int, parts: int) -> np.ndarray:
    """The repeats among the hashes that are `part` modulo `parts`."""
    found, numbers, first = [], [], 0
    for read in pieces:
        hashes = read()
        chosen = np.flatnonzero((hashes % np.uint64(parts) == part) & (hashes != 0))
        found.append(hashes[chosen])
        numbers.append(first + chosen)
        first += len(hashes)
    number = np.concatenate(numbers)
    is_repeat = np.ones(len(number), bool)
    is_repeat[np.unique(np.concatenate(found), return_index=True)[1]] = False
    return number[is_repeat]
