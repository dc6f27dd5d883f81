"""Which of the ways to score text an evaluation takes, as the task's collator says."""

import pytest
import torch

from llm.data import prepare
from llm.data.collators import (
    CausalCollator,
    ConversationCollator,
    JoinedPairCollator,
    MaskingCollator,
    PairCollator,
    PrefixCollator,
    SpanCollator,
)
from llm.data.collators.base import Setting, scored_by
from llm.data.sampling.windows import IGNORED
from llm.data.sources import TextFiles
from llm.errors import ConfigError
from llm.evaluation import EVALUATIONS, Subject, score_stream
from llm.evaluation.targets import score_targets
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import ByteSpec


class LastToken(CausalCollator):
    """Scores the last token of each window alone."""

    def __call__(self, windows, indices_b):
        batch = super().__call__(windows, indices_b)
        targets_bk = torch.full_like(batch.targets_bk, IGNORED)
        targets_bk[:, -1] = batch.targets_bk[:, -1]
        return batch._replace(targets_bk=targets_bk)


class Better(CausalCollator):
    """Stands for one of preferences."""

    of_preferences = True


@pytest.fixture
def subject(tmp_path):
    """Makes a subject of a collator's class: a decoder and held-out text."""
    for n in range(9):
        (tmp_path / f"{n}.txt").write_text(f"Document {n}: " + "the cat sat on the mat. " * (3 + n))
    stream = prepare(TextFiles([f"{tmp_path}/*.txt"]), ByteSpec(), tmp_path / "shards").train
    tokenizer = ByteSpec().build(())
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, context_length=16, d_model=16, n_layers=1, n_heads=2, d_ff=32
    )
    model = Transformer(config).eval()
    init_weights(model, 1)

    def make(kind):
        collate = kind(Setting(tokenizer, 1, config))
        return Subject(model, tokenizer, stream, lambda: collate, lambda: None, 4, 1)

    return make


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (CausalCollator, "tokens"),
        (MaskingCollator, "hidden_tokens"),
        *((kind, "targets") for kind in (PrefixCollator, PairCollator, JoinedPairCollator)),
        *((kind, "targets") for kind in (ConversationCollator, SpanCollator, LastToken)),
    ],
)
def test_a_collator_says_itself_what_perplexity_scores(kind, expected):
    assert scored_by(kind.__new__(kind)) == expected


def test_next_tokens_are_scored_document_by_document(subject):
    plain = subject(CausalCollator)
    result = EVALUATIONS["perplexity"](plain)
    assert result.metrics == score_stream(plain.model, plain.stream, batch_size=4)
    assert len(result.rows) == plain.stream.n_documents


def test_a_collator_made_from_ours_is_scored_by_its_own_targets(subject):
    own = subject(LastToken)
    metrics = EVALUATIONS["perplexity"](own).metrics
    assert metrics == score_targets(own.model, own.stream, own.collate, own.tokenizer, seed=1, batch_size=4)
    assert metrics["tokens"] == (len(own.stream) - 1) // 16 < len(own.stream) - 1


def test_preferences_have_no_perplexity(subject):
    with pytest.raises(ConfigError, match="preferences have no perplexity"):
        EVALUATIONS["perplexity"](subject(Better))
