"""Where a token stands in a stream, found without holding the stream in memory."""

import numpy as np

from llm.data.shards import TokenStream

SCANNED_AT_ONCE = 1 << 24  # tokens


def places_of(stream: TokenStream, id_: int) -> np.ndarray:
    """The positions (n,) of a token."""
    blocks = range(0, len(stream), SCANNED_AT_ONCE)
    found = [
        first + np.flatnonzero(stream.tokens[first : first + SCANNED_AT_ONCE] == id_) for first in blocks
    ]
    return np.concatenate([np.zeros(0, np.int64), *found])
