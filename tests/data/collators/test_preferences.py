"""Preferences: the answers alone are scored, token by token, and the reference model is asked in batches of any size."""

import json

import numpy as np
import pytest
import torch

from llm.data import prepare
from llm.data.collators.base import Setting
from llm.data.collators.conversations import Conversing
from llm.data.collators.preferences import PreferenceCollator
from llm.data.sampling.windows import IGNORED
from llm.data.sources import PreferenceLines
from llm.errors import ConfigError
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import ByteSpec, ChatTemplate
from llm.tokenizer.chat import CHATML
from llm.train import reference
from llm.train.reference import reference_log_probabilities

TOKENIZER = ByteSpec().build().with_chat_template(CHATML)
SHAPE = {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 48, "vocab_size": TOKENIZER.vocab_size}
ROWS = [{"prompt": f"Say {n}.", "chosen": "yes " * (n % 5 + 1), "rejected": f"no {n}"} for n in range(23)]


class Chatting:
    needs_text = False

    def build(self, texts):
        return TOKENIZER

    def fingerprint(self):
        return TOKENIZER.hash


@pytest.fixture
def stream(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    source = Conversing(PreferenceLines([f"{tmp_path}/a.jsonl"], validation_share=0), preferences=True)
    return prepare(source, Chatting(), tmp_path / "shards", processes=1).train


def collator(length=128, **keys):
    return PreferenceCollator(Setting(TOKENIZER, 0, ModelConfig(**SHAPE, context_length=length)), **keys)


def test_the_answers_alone_are_scored_token_by_token(stream):
    collate, template = collator(), ChatTemplate(TOKENIZER)
    view = collate.samples(stream, 128, 0)
    numbers = np.arange(view.n_in_order)
    batch = collate(view.in_order(numbers), numbers)
    sides = [(row["prompt"], row[key]) for row in ROWS for key in ("chosen", "rejected")]
    assert len(batch.tokens_bt) == len(sides)
    n_targets = 0
    for row, (prompt, answer) in enumerate(sides):
        before = template.prompt([{"role": "user", "content": prompt}])
        is_scored = batch.targets_bk[row] != IGNORED
        targets, places = (
            batch.targets_bk[row][is_scored].tolist(),
            batch.positions_bk[row][is_scored].tolist(),
        )
        # Each target stands behind all that goes before it, from the first token of the answer to the one that ends it.
        assert places == list(range(len(before) - 1, len(before) - 1 + len(targets)))
        assert batch.tokens_bt[row, : len(before)].tolist() == before
        assert batch.tokens_bt[row][places[1:]].tolist() == targets[:-1]
        assert TOKENIZER.decode(targets[:-1]) == answer
        assert targets[-1] in template.stop_ids
        n_targets += len(targets)
    assert collate.mean_tokens(view).targets == pytest.approx(n_targets / len(ROWS))


def test_the_reference_model_says_the_same_whatever_is_read_at_once(stream, monkeypatch):
    model = Transformer(ModelConfig(**SHAPE, context_length=128))
    init_weights(model, 0)
    one_by_one = reference_log_probabilities(model, stream, collator(), tokens=1)
    assert (one_by_one < 0).all()
    np.testing.assert_allclose(reference_log_probabilities(model, stream, collator()), one_by_one, rtol=1e-5)
    asked, scores = [], reference.answer_scores

    def little_memory(net, batch):
        asked.append(len(batch.tokens_bt))
        if len(batch.tokens_bt) > 8:
            raise torch.OutOfMemoryError("none is left")
        return scores(net, batch)

    monkeypatch.setattr(reference, "answer_scores", little_memory)
    np.testing.assert_allclose(reference_log_probabilities(model, stream, collator()), one_by_one, rtol=1e-5)
    # All 23 pairs at first, then half as many until they fit.
    assert asked[:4] == [46, 22, 10, 4]


def test_what_the_reference_model_says_stands_in_the_batches_of_a_collator_beside_it_alone(stream):
    collate = collator()
    view = collate.samples(stream, 128, 0)
    said = np.arange(2 * len(ROWS), dtype=np.float32).reshape(-1, 2)
    numbers = np.array([5, 0, -1])
    batch = collate.with_reference({stream.name: said})(view.in_order(numbers), numbers)
    assert batch.reference_b2.tolist() == [[10, 11], [0, 1], [0, 0]]
    assert collate(view.in_order(numbers), numbers).reference_b2 is None


def test_what_is_dropped_has_no_score(stream):
    model = Transformer(ModelConfig(**SHAPE, context_length=40))
    init_weights(model, 0)
    found = reference_log_probabilities(model, stream, collator(40, too_long="drop"))
    view = collator(40, too_long="drop").samples(stream, 40, 0)
    assert 0 < view.size < len(ROWS)
    assert set(np.flatnonzero((found < 0).all(1))) == set(view.indices)
    with pytest.raises(ConfigError, match="makes no preferences"):
        reference_log_probabilities(model, stream, lambda *_: None)
