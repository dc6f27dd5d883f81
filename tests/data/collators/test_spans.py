"""Hidden spans: source and target together are the window, alike for the same sample, each token in its own document."""

import numpy as np
import pytest

from llm.data.collators.base import Setting
from llm.data.collators.spans import SpanCollator, hide_spans
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.model import ModelConfig
from llm.model.mask import PADDING
from llm.tokenizer import SENTINEL, SPECIAL_TOKENS, ByteSpec, sentinels, start_token

TOKENIZER = ByteSpec([*SPECIAL_TOKENS, *(SENTINEL.format(n) for n in range(40))]).build()
END = TOKENIZER.end_of_text
MARKS = sentinels(TOKENIZER)
FIRST = len(TOKENIZER.special_tokens)
LENGTH = 64
SHORT, LONG, SUFFIX = {"share": 0.15, "mean_span": 3.0}, {"share": 0.5, "mean_span": 8.0}, {"share": 0.25}


def collator(seed=0, length=LENGTH, **keys):
    return SpanCollator(Setting(TOKENIZER, seed, ModelConfig(context_length=length)), **keys)


def windows(rows, length=LENGTH + 1, seed=1):
    return np.random.default_rng(seed).integers(FIRST, TOKENIZER.vocab_size, (rows, length))


def sides(batch, row):
    """The source and the target of a row, without padding and the target's end."""
    source = batch.source_bs[row][batch.source_documents_bs[row] != PADDING].tolist()
    target = [id_ for id_ in batch.targets_bk[row].tolist() if id_ != IGNORED]
    assert target[-1] == END
    return source, target[:-1]


def restored(source, target):
    """The window: each sentinel of the source replaced by what follows it in the target."""
    spans, mark = {}, None
    for id_ in target:
        if id_ in MARKS:
            mark = id_
            assert mark not in spans
            spans[mark] = []
        else:
            spans[mark].append(id_)
    used = [id_ for id_ in source if id_ in MARKS]
    assert used == list(spans) == MARKS[: len(used)]
    return [part for id_ in source for part in spans.get(id_, [id_])], spans


@pytest.mark.parametrize("denoisers", [[SHORT], [LONG], [SUFFIX], [SHORT, LONG, SUFFIX]])
def test_source_and_target_are_the_window(denoisers):
    rows = windows(40)
    rows[:, 30] = END
    batch = collator(denoisers=denoisers)(rows, np.arange(40))
    for row in range(40):
        assert restored(*sides(batch, row))[0] == rows[row, :-1].tolist()


@pytest.mark.parametrize(("denoiser", "hidden", "n_spans"), [(SHORT, 10, 3), (LONG, 32, 4), (SUFFIX, 16, 1)])
def test_as_much_is_hidden_as_asked_for(denoiser, hidden, n_spans):
    rows = windows(50)
    batch = collator(denoisers=[denoiser])(rows, np.arange(50))
    for row in range(50):
        spans = restored(*sides(batch, row))[1]
        assert len(spans) == n_spans
        assert sum(map(len, spans.values())) == hidden
    if denoiser is SUFFIX:
        assert all(sides(batch, row)[0][:-1] == rows[row, :48].tolist() for row in range(50))


def test_every_token_but_the_first_is_hidden_at_times_and_spans_vary():
    random = np.random.default_rng(0)
    hidden = np.mean([hide_spans(64, 10, 3, random)[0] for _ in range(4000)], axis=0)
    assert hidden[0] == 0  # a shown stretch comes first, as in T5's own
    assert (hidden[5:] > 0.05).all()
    assert abs(hidden.sum() - 10) < 1e-9


def test_a_decoder_reads_the_target_one_position_later():
    batch = collator()(windows(4), np.arange(4))
    assert (batch.tokens_bt[:, 0] == start_token(TOKENIZER)).all()
    assert batch.tokens_bt[:, 1:].equal(batch.targets_bk[:, :-1])


def test_a_sample_is_hidden_alike_in_any_batch_and_otherwise_by_another_seed():
    rows = windows(6)
    whole = collator(denoisers=[SHORT, LONG])(rows, np.arange(6))
    alone = collator(denoisers=[SHORT, LONG])(rows[4:5], np.array([4]))
    for one, other in zip(whole.inputs().values(), alone.inputs().values(), strict=True):
        assert (one is None and other is None) or one[4].equal(other[0])
    assert whole.targets_bk[4].equal(alone.targets_bk[0])
    assert not collator(seed=1)(rows, np.arange(6)).source_bs.equal(collator()(rows, np.arange(6)).source_bs)
    assert not collator()(rows, np.arange(6, 12)).source_bs.equal(collator()(rows, np.arange(6)).source_bs)


def test_each_token_belongs_to_the_document_that_it_stood_in():
    rows = windows(30)
    rows[:, [20, 21, 40]] = END
    documents = np.cumsum(rows[:, :-1] == END, axis=1)
    batch = collator(denoisers=[LONG])(rows, np.arange(30))
    for row in range(30):
        # Distinct tokens tell where each one stood.
        at = {}
        for position, id_ in enumerate(rows[row, :-1].tolist()):
            at.setdefault(id_, set()).add(int(documents[row, position]))
        seen = batch.source_documents_bs[row].tolist()
        for id_, document in zip(batch.source_bs[row].tolist(), seen, strict=True):
            assert document == PADDING or id_ in MARKS or document in at[id_]
        # A decoder's position belongs to the token that it reads, and always finds some of its document in the source.
        assert set(batch.documents_bt[row].tolist()) <= set(seen)


def test_without_documents_all_but_padding_is_seen():
    rows = windows(3)
    rows[:, 30] = END
    batch = collator(within_documents=False)(rows, np.arange(3))
    assert set(batch.source_documents_bs.flatten().tolist()) <= {0, PADDING}
    assert batch.documents_bt.unique().tolist() == [0]


def test_a_cut_window_and_one_of_nothing():
    rows = windows(3)
    rows[1, 9:] = IGNORED
    rows[2] = IGNORED
    batch = collator()(rows, np.array([0, 1, -1]))
    assert restored(*sides(batch, 1))[0] == rows[1, :9].tolist()
    assert (batch.targets_bk[2] == IGNORED).all()
    assert (batch.source_documents_bs[2] == PADDING).all()
    assert batch.tokens_bt.min() >= 0


def test_shapes_do_not_change_from_batch_to_batch():
    shapes = {
        tuple(
            collator(denoisers=[SHORT, LONG])(
                windows(4, seed=seed), np.arange(seed, seed + 4)
            ).source_bs.shape
        )
        for seed in range(5)
    }
    assert len(shapes) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"denoisers": []}, "empty"),
        ({"denoisers": [{"share": 0.0}]}, "above 0"),
        ({"denoisers": [{"share": 0.8, "mean_span": 2.0}]}, "at most 0.9"),
        ({"denoisers": [{"rate": 0.15}]}, "must be share"),
        (
            {"denoisers": [{"share": 0.45, "mean_span": 1.0}], "length": 256},
            "hides 115 spans, and the tokenizer has 40",
        ),
    ],
)
def test_what_cannot_be_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        collator(**keys)
