"""Scoring hidden tokens: each once, equal to hiding them by hand, and an error on nothing."""

import math

import numpy as np
import pytest
import torch

from llm.errors import DataError
from llm.evaluation.masked import Hidden, score_masked
from llm.model import ModelConfig, Transformer, init_weights

MASK, END = 0, 1
IDS = Hidden(MASK, END)


class Stream:
    def __init__(self, length):
        self.tokens = np.random.default_rng(length).integers(1, 31, length)

    def __len__(self):
        return len(self.tokens)

    def read_padded(self, starts, length, fill):
        rows = [self.tokens[start : start + length] for start in starts]
        return np.stack([np.pad(row, (0, length - len(row)), constant_values=fill) for row in rows])


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        architecture="encoder",
        d_model=16,
        n_layers=2,
        n_heads=2,
        context_length=16,
        vocab_size=31,
        init_std=0.5,
    )
    model = Transformer(config).double()
    init_weights(model, 0)
    return model.eval()


@torch.no_grad()
def by_hand(model, tokens):
    """The negative log-likelihood of each token, the windows and turns written out."""
    lost, right = [], []
    for start in range(0, len(tokens), 16):
        window = torch.from_numpy(tokens[start : start + 16])
        documents = (window == END).cumsum(0)
        for turn in range(7):
            hidden = [at for at in range(turn, len(window), 7) if window[at] != END]
            shown = window.clone()
            shown[hidden] = MASK
            scores = model(shown[None], documents_bt=documents[None])[0].log_softmax(-1)
            lost += [-scores[at, window[at]].item() for at in hidden]
            right += [bool(scores[at].argmax() == window[at]) for at in hidden]
    return lost, right


@pytest.mark.parametrize("length", [160, 165, 9])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_token_is_hidden_once(model, length, batch_size):
    stream = Stream(length)
    figures = score_masked(model, stream, IDS, batch_size=batch_size)
    lost, right = by_hand(model, stream.tokens)
    assert figures["tokens"] == len(lost) == (stream.tokens != END).sum()
    assert figures["loss"] == pytest.approx(np.mean(lost), rel=1e-6)
    assert figures["pseudo_perplexity"] == pytest.approx(math.exp(np.mean(lost)), rel=1e-6)
    assert figures["masked_accuracy"] == pytest.approx(np.mean(right))


def test_nothing_cannot_be_scored(model):
    with pytest.raises(DataError, match="no tokens"):
        score_masked(model, Stream(0), IDS)
