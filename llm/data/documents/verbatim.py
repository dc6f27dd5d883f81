"""What of a document is not text to be read, and so is kept byte by byte: tags, where an answer stands.

Shapes: t ids.
"""

import numpy as np

from llm.errors import DataError

# Begins such a side of a document, and stands in no UTF-8 text.
VERBATIM = b"\xfd"
BYTES = 256


def as_ids(data: bytes, end_of_text: int, vocab_size: int) -> np.ndarray:
    """Ids (t,) that stand for bytes whatever the tokenizer would make of them, the end of text left out.

    Raises:
        DataError: the vocabulary has fewer ids than there are bytes.
    """
    if vocab_size <= BYTES:
        raise DataError(
            f"The tokenizer has {vocab_size} ids; labelled words need more than {BYTES}: tokenizer=bpe has."
        )
    ids_t = np.frombuffer(data, np.uint8).astype(np.int64)
    return ids_t + (ids_t >= end_of_text)


def from_ids(ids_t: np.ndarray, end_of_text: int) -> bytes:
    """The bytes that `as_ids` wrote."""
    ids_t = ids_t.astype(np.int64)
    return (ids_t - (ids_t > end_of_text)).astype(np.uint8).tobytes()


def text_of(ids_t: np.ndarray, end_of_text: int) -> np.ndarray:
    """The ids of a document up to what is verbatim in it: two ends of text stand before that."""
    is_end_t = ids_t == end_of_text
    begins = np.flatnonzero(is_end_t[:-1] & is_end_t[1:])
    return ids_t[: begins[0]] if len(begins) else ids_t
