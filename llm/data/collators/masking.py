"""Masked tokens: some of a text are hidden, and the model predicts from both sides what they were.

Shapes: b batch, t time, k targets in a row.
"""

from typing import ClassVar

import numpy as np

from llm.data.collators.base import (
    Batch,
    Given,
    ScoredBy,
    Setting,
    TokenCounts,
    WindowCollator,
    document_numbers,
)
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer, mask_token


class MaskingCollator(WindowCollator):
    """Hides a share of each window, as BERT does (arXiv 1810.04805).

    Of what is hidden, four fifths become the mask token, a tenth another token, and a tenth stay: the choice follows
    from the run's seed and the sample's number alone. Attention stays within a document, and no end of text is hidden.

    Args:
        setting: the run's tokenizer, which must have a mask token, and its seed.
        share: how much of a window is hidden, from 0 to 1.
        whole_words: whether a word is hidden whole or not at all; a word is what letters and digits make up. Less than
            the share may then be hidden, by a part of a word.

    Raises:
        ConfigError: the tokenizer has no mask token, or `share` is not between 0 and 1.
    """

    given: Given = "hidden"
    scored_by: ClassVar[ScoredBy] = "hidden_tokens"
    extra_fields = ("documents_bt",)

    def __init__(self, setting: Setting, *, share: float = 0.15, whole_words: bool = False) -> None:
        if not 0 < share < 1:
            raise ConfigError(f"task.collator.share={share}: it must be above 0 and below 1.")
        self.share, self.seed = share, setting.seed
        self.mask = mask_token(setting.tokenizer)
        self.end_of_text = setting.tokenizer.end_of_text
        special = set(setting.tokenizer.special_tokens.values()) | {self.end_of_text}
        self.ordinary = np.array([id_ for id_ in range(setting.tokenizer.vocab_size) if id_ not in special])
        self.words = Words(setting.tokenizer) if whole_words else None

    def window_tokens(self, length: int) -> TokenCounts:
        """Those of a window; the hidden ones alone are scored."""
        return TokenCounts(length, length, self.share * length)

    def __call__(self, windows: np.ndarray, indices_b: np.ndarray) -> Batch:
        """The batch of the windows' tokens but their last ones."""
        tokens_bt = windows[:, :-1].copy()
        present_bt = tokens_bt != IGNORED
        tokens_bt[~present_bt] = self.end_of_text
        documents_bt = np.where(present_bt, document_numbers(tokens_bt, self.end_of_text), PADDING)
        can_hide_bt = present_bt & (tokens_bt != self.end_of_text)
        draws = [self._draw(sample, tokens_bt.shape[1]) for sample in indices_b.tolist()]
        scores_bt, fates_bt, others_bt = (np.stack(parts) for parts in zip(*draws, strict=True))
        # As many in every row, so that shapes don't change.
        k = max(1, round(self.share * tokens_bt.shape[1]))
        hidden_bt = lowest(np.where(can_hide_bt, scores_bt, np.inf), k, self._units(tokens_bt))
        positions_bk = np.sort(np.argsort(~hidden_bt, axis=1, kind="stable")[:, :k], axis=1)
        targets_bk = np.take_along_axis(np.where(hidden_bt, tokens_bt, IGNORED), positions_bk, axis=1)
        fates_bk, others_bk, tokens_bk = (
            np.take_along_axis(array_bt, positions_bk, axis=1)
            for array_bt in (fates_bt, others_bt, tokens_bt)
        )
        shown_bk = np.select([fates_bk < 0.8, fates_bk < 0.9], [self.mask, others_bk], tokens_bk)
        shown_bk = np.where(targets_bk == IGNORED, tokens_bk, shown_bk)
        np.put_along_axis(tokens_bt, positions_bk, shown_bk, axis=1)
        return Batch.of(
            tokens_bt=tokens_bt,
            targets_bk=targets_bk,
            indices_b=indices_b,
            documents_bt=documents_bt,
            positions_bk=positions_bk,
        )

    def _units(self, tokens_bt: np.ndarray) -> np.ndarray:
        """The position at which the token or the word of each token begins (b, t)."""
        positions_bt = np.broadcast_to(np.arange(tokens_bt.shape[1]), tokens_bt.shape)
        if self.words is None:
            return positions_bt
        return np.maximum.accumulate(np.where(self.words.begin(tokens_bt), positions_bt, 0), axis=1)

    def _draw(self, sample: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What chance gives a sample: an order of its positions, their fates, and other tokens for them."""
        # A window of nothing is sample -1.
        key = np.array([self.seed, sample % (1 << 64)], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        scores_t, fates_t = random.random((2, length))
        return scores_t, fates_t, random.choice(self.ordinary, length)


class Words:
    """Where words begin: at a token that does not go on with letters or digits where the one before it left off."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = [tokenizer.decode_bytes([id_]) for id_ in range(tokenizer.vocab_size)]
        self._goes_on = np.array([_is_word(piece[:1]) for piece in pieces])
        self._leaves_off = np.array([_is_word(piece[-1:]) for piece in pieces])

    def begin(self, tokens_bt: np.ndarray) -> np.ndarray:
        """Whether a word, or what is none, begins at each token (b, t)."""
        begins_bt = np.ones(tokens_bt.shape, bool)
        begins_bt[:, 1:] = ~(self._goes_on[tokens_bt[:, 1:]] & self._leaves_off[tokens_bt[:, :-1]])
        return begins_bt


def _is_word(byte: bytes) -> bool:
    """Whether a byte is of a letter or digit; those beyond ASCII count as such."""
    return byte.isalnum() or byte >= b"\x80"


def lowest(scores_bt: np.ndarray, k: int, units_bt: np.ndarray) -> np.ndarray:
    """Which positions (b, t) are of the units of lowest score, `k` in a row at most and no unit in part.

    A unit is a stretch that begins at the position `units_bt` and has the score of that one. Infinite scores are never
    among the lowest.
    """
    # A unit counts as that one only where all of it may be chosen.
    barred_bt = np.zeros(scores_bt.shape)
    np.maximum.at(
        barred_bt, (np.arange(len(scores_bt))[:, None], units_bt), np.where(np.isinf(scores_bt), np.inf, 0)
    )
    of_unit_bt = np.take_along_axis(np.maximum(scores_bt, barred_bt), units_bt, axis=1)
    order_bt = np.argsort(of_unit_bt, axis=1, kind="stable")
    ordered_units_bt = np.take_along_axis(units_bt, order_bt, axis=1)
    is_chosen_bt = np.broadcast_to(np.arange(scores_bt.shape[1]) < k, scores_bt.shape)
    if k < scores_bt.shape[1]:
        is_chosen_bt = is_chosen_bt & (ordered_units_bt != ordered_units_bt[:, k : k + 1])
    chosen_bt = np.zeros(scores_bt.shape, bool)
    np.put_along_axis(chosen_bt, order_bt, is_chosen_bt, axis=1)
    return chosen_bt & np.isfinite(of_unit_bt)
