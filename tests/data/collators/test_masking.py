"""What is hidden: a fixed share of each row, the same for the same sample, told by its own document alone."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data.collators.base import Setting
from llm.data.collators.masking import MaskingCollator, lowest
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.model import ModelConfig
from llm.model.mask import PADDING
from llm.tokenizer import ByteSpec, mask_token

TOKENIZER = ByteSpec().build(())
END = TOKENIZER.end_of_text
MASK = mask_token(TOKENIZER)
FIRST = len(TOKENIZER.special_tokens)


def collator(seed=0, **keys):
    return MaskingCollator(Setting(TOKENIZER, seed, ModelConfig(context_length=64)), **keys)


def windows(rows, length=65, seed=1):
    return np.random.default_rng(seed).integers(FIRST, TOKENIZER.vocab_size, (rows, length))


def hidden(batch, row):
    """Position -> target of a row."""
    pairs = zip(batch.positions_bk[row].tolist(), batch.targets_bk[row].tolist(), strict=True)
    return {position: target for position, target in pairs if target != IGNORED}


def test_targets_are_what_stood_where_something_is_hidden():
    rows = windows(8)
    batch = collator()(rows, np.arange(8))
    assert batch.positions_bk.shape == batch.targets_bk.shape == (8, 10)  # 15% of 64
    for row in range(8):
        told = hidden(batch, row)
        assert len(told) == 10
        shown = batch.tokens_bt[row].tolist()
        for position, token in enumerate(rows[row, :-1].tolist()):
            assert told.get(position, shown[position]) == token


def test_four_fifths_are_masked_a_tenth_replaced_and_a_tenth_shown():
    rows = windows(2000)
    batch = collator()(rows, np.arange(2000))
    shown = np.take_along_axis(batch.tokens_bt.numpy(), batch.positions_bk.numpy(), axis=1)
    masked, kept = shown == MASK, shown == batch.targets_bk.numpy()
    # Three standard deviations of 20,000 draws are below 0.01; one in 256 of the replaced is itself again.
    assert abs(masked.mean() - 0.8) < 0.01
    assert abs(kept.mean() - 0.1) < 0.01
    assert shown[~masked].min() >= FIRST


def test_a_sample_is_masked_alike_in_any_batch_and_otherwise_by_another_seed():
    rows = windows(6)
    whole = collator()(rows, np.arange(6))
    alone = collator()(rows[4:5], np.array([4]))
    assert whole.tokens_bt[4].equal(alone.tokens_bt[0])
    assert whole.targets_bk[4].equal(alone.targets_bk[0])
    assert not collator(seed=1)(rows, np.arange(6)).positions_bk.equal(whole.positions_bk)
    # The same text under another index, as in another epoch, is masked elsewhere.
    assert not collator()(rows, np.arange(6, 12)).positions_bk.equal(whole.positions_bk)


def test_ends_of_texts_are_shown_and_part_documents():
    rows = windows(4)
    rows[:, [0, 20, 21]] = END
    batch = collator(share=0.9)(rows, np.arange(4))
    assert (batch.tokens_bt[:, [0, 20, 21]] == END).all()
    assert batch.documents_bt[0].tolist() == [1] * 20 + [2] + [3] * 43


def test_nothing_past_the_end_of_the_text_is_a_target():
    rows = windows(2)
    rows[1, 5:] = IGNORED
    batch = collator(share=0.5)(rows, np.array([0, -1]))
    assert set(hidden(batch, 1)) <= set(range(5))
    assert batch.documents_bt[1].tolist() == [0] * 5 + [PADDING] * 59
    assert batch.tokens_bt.min() >= 0


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ConfigError, match="share"):
        collator(share=share)


def test_words_are_hidden_whole_or_not_at_all():
    text = "the quick brown_fox, jumps 123 over naïve dogs;\n" * 8
    ids = np.array(TOKENIZER.encode(text))[:401]
    words = [match.span() for match in re.finditer(rb"[0-9A-Za-z\x80-\xff]+", text.encode()[:400])]
    n_hidden = []
    for sample in range(40):
        batch = MaskingCollator(Setting(TOKENIZER, 0, ModelConfig(context_length=400)), whole_words=True)(
            ids[None], np.array([sample])
        )
        told = set(hidden(batch, 0))
        assert all(len(told & set(range(*span))) in (0, span[1] - span[0]) for span in words)
        n_hidden.append(len(told))
    assert max(n_hidden) <= 60  # 15% of 400
    assert np.mean(n_hidden) > 56


@given(
    st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1)), min_size=1, max_size=12),
    st.integers(1, 30),
    st.sets(st.integers(0, 40)),
)
def test_the_lowest_units_are_the_first_of_those_that_may_be_chosen(units, k, barred):
    starts = np.repeat(np.cumsum([0, *(size for size, _ in units)])[:-1], [size for size, _ in units])
    scores = np.repeat([score + 0.001 * n for n, (_, score) in enumerate(units)], [size for size, _ in units])
    scores = np.where([n in barred for n in range(len(scores))], np.inf, scores)
    chosen = lowest(scores[None], k, starts[None])[0]
    order = sorted({int(start) for start in starts}, key=lambda start: (scores[starts == start].max(), start))
    wanted = set()
    for start in order:
        unit = set(np.flatnonzero(starts == start).tolist())
        if np.isinf(scores[list(unit)]).any() or len(wanted) + len(unit) > k:
            break
        wanted |= unit
    assert set(np.flatnonzero(chosen).tolist()) == wanted
