"""Guesses of what comes next, from what was there before: text that repeats itself is then read, not written."""

from collections.abc import Sequence

SIZES = (3, 2)  # newest tokens that must have come before, more of them first


def looked_up(tokens: Sequence[int], most: int) -> list[int]:
    """Up to `most` tokens that followed when the newest of `tokens` came the last time; none where they never did.

    Known as prompt lookup decoding, a case of speculative decoding (arXiv 2211.17192) without a second model.
    """
    for size in SIZES:
        newest = list(tokens[-size:])
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start] == newest[0] and list(tokens[start : start + size]) == newest:
                return list(tokens[start + size : start + size + most])
    return []
