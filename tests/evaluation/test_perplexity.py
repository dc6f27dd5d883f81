"""Scoring a stream: equal to a direct computation, every token once, errors on nothing."""

import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from llm.errors import ConfigError, DataError
from llm.evaluation import perplexity, score_stream
from llm.hub import from_huggingface_state
from llm.model import Transformer


class Stream:
    def __init__(self, length, n_bytes=1000, vocab=61):
        self.tokens = np.random.default_rng(length).integers(0, vocab, length)
        self.n_bytes = n_bytes

    def __len__(self):
        return len(self.tokens)

    def read(self, starts, length):
        assert all(start + length <= len(self) for start in starts)
        return np.stack([self.tokens[start : start + length] for start in starts])


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = (
        GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=16, vocab_size=61))
        .double()
        .eval()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def model(theirs):
    config, state = from_huggingface_state(theirs.state_dict(), theirs.config.to_dict())
    model = Transformer(config).double()
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def direct(theirs, stream, context):
    """The summed loss by transformers, a window at a time."""
    total = 0.0
    for start in range(0, len(stream) - 1, context):
        ids = torch.from_numpy(stream.tokens[start : start + context + 1])[None]
        logits = theirs(ids[:, :-1]).logits[0]
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    return total


@pytest.mark.parametrize("length", [2, 9, 16, 17, 18, 33, 100, 129])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_equals_a_direct_computation_whatever_the_batch(theirs, model, length, batch_size):
    stream = Stream(length)
    found = score_stream(model, stream, batch_size=batch_size)
    nll = direct(theirs, stream, 16)
    assert found["tokens"] == length - 1
    assert found["bytes"] == 1000
    assert found["loss"] == pytest.approx(nll / (length - 1), rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(nll / (length - 1)), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nll / math.log(2) / 1000, rel=1e-6)


def test_a_shorter_context_and_small_slices_of_logits(theirs, model, monkeypatch):
    monkeypatch.setattr(perplexity, "_LOGIT_ROWS", 7)
    stream = Stream(100)
    found = score_stream(model, stream, context_length=5, batch_size=4)
    assert found["loss"] == pytest.approx(direct(theirs, stream, 5) / 99, rel=1e-6)


def test_a_model_in_training_scores_the_same_and_stays_so(model):
    stream = Stream(50)
    expected = score_stream(model, stream)
    training = Transformer(model.config).double()
    training.load_state_dict(model.state_dict())
    training.train()
    assert score_stream(training, stream) == expected
    assert training.training


@pytest.mark.parametrize(("length", "n_bytes"), [(0, 5), (1, 5), (10, 0)])
def test_nothing_to_score_is_an_error(model, length, n_bytes):
    with pytest.raises(DataError, match="nothing to score"):
        score_stream(model, Stream(length, n_bytes))


@pytest.mark.parametrize("context_length", [0, -1, 17])
def test_a_context_that_the_model_lacks_is_refused(model, context_length):
    with pytest.raises(ConfigError, match=r"context_length=.*1 to 16"):
        score_stream(model, Stream(50), context_length=context_length)


def test_no_batch_is_refused(model):
    with pytest.raises(ConfigError, match="batch_size"):
        score_stream(model, Stream(50), batch_size=0)
