"""Prefixes: what follows one is foretold, alike for the same sample, and a step's mean is over all that is foretold."""

import numpy as np

from llm.data.collators.base import Setting
from llm.data.collators.prefix import PrefixCollator, PrefixWindows, prefix_lengths
from llm.data.module import TrainingSet
from llm.data.sampling.windows import IGNORED
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec

TOKENIZER = ByteSpec().build()
WINDOWS = np.random.default_rng(0).integers(9, 200, (6, 33))


def collator(seed=0, **keys):
    return PrefixCollator(Setting(TOKENIZER, seed, ModelConfig(context_length=32)), **keys)


def test_each_token_behind_the_prefix_is_foretold_once():
    batch = collator()(WINDOWS, np.arange(6))
    for row, prefix in enumerate(batch.prefix_b.tolist()):
        assert 1 <= prefix < 32
        assert batch.tokens_bt[row].tolist() == WINDOWS[row, :-1].tolist()
        assert batch.targets_bk[row].tolist() == [IGNORED] * (prefix - 1) + WINDOWS[row, prefix:].tolist()
    assert len(set(batch.prefix_b.tolist())) > 1


def test_a_sample_has_the_same_prefix_in_any_batch_and_another_by_another_seed():
    whole, alone = collator()(WINDOWS, np.arange(6)), collator()(WINDOWS[4:5], np.array([4]))
    assert whole.prefix_b[4:5].equal(alone.prefix_b)
    assert whole.targets_bk[4:5].equal(alone.targets_bk)
    assert not collator(seed=1)(WINDOWS, np.arange(6)).prefix_b.equal(whole.prefix_b)


def test_every_length_is_as_likely():
    counts = np.bincount(prefix_lengths(np.arange(8000), 9, 0))
    # 1,000 of each of eight, and five standard deviations of that.
    assert counts[0] == 0
    assert (abs(counts[1:] - 1000) < 5 * 30).all()


class Noise:
    """A stream of tokens."""

    def __len__(self):
        return 1000

    def read(self, starts, length):
        return WINDOWS[:, :length][np.zeros(len(starts), int)]


def test_micro_batches_are_divided_by_the_targets_of_their_step():
    view = PrefixWindows(Noise(), 32, 0)
    step = TrainingSet(view, collator(), batch_size=8)
    parts = [step.__getitems__(np.arange(first, first + 2)) for first in range(8, 16, 2)]
    foretold = sum(int((part.targets_bk != IGNORED).sum()) for part in parts)
    assert {part.divisor.item() for part in parts} == {foretold / 4}


def test_documents_and_windows_of_nothing():
    rows = WINDOWS.copy()
    rows[0, 10] = TOKENIZER.end_of_text
    rows[1] = IGNORED
    batch = collator(within_documents=True)(rows, np.array([0, -1, 2, 3, 4, 5]))
    assert batch.documents_bt[0].tolist() == [0] * 10 + [1] * 22
    assert (batch.targets_bk[1] == IGNORED).all()
    assert batch.tokens_bt.min() >= 0
