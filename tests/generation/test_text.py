"""Streaming text: exact bytes, whole characters, any prompt, samples in one batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.errors import ConfigError
from llm.generation import Sampling, complete, decode_stream, stream_text
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import ByteSpec, SentencePieceSpec

TOKENIZER = ByteSpec().build()
SAMPLING = Sampling(temperature=1.0)


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        d_model=16, n_layers=1, n_heads=2, d_ff=16, context_length=12, vocab_size=TOKENIZER.vocab_size
    )
    model = Transformer(config)
    init_weights(model, seed=0)
    return model


@settings(max_examples=300, deadline=None)
@given(data=st.one_of(st.binary(), st.text().map(str.encode)))
def test_streamed_pieces_join_to_the_decoded_whole(data):
    ids = [byte + len(TOKENIZER.special_tokens) for byte in data]
    assert "".join(decode_stream(TOKENIZER, ids, stop_ids=())) == TOKENIZER.decode(ids)


def test_a_character_comes_when_it_is_whole():
    ids = TOKENIZER.encode("aé😀")
    assert list(decode_stream(TOKENIZER, ids, ())) == ["a", "é", "😀"]
    assert list(decode_stream(TOKENIZER, ids[:-1], ())) == ["a", "é", "\ufffd"]


def test_a_piece_comes_before_the_next_token_is_asked_for():
    def ids():
        yield from TOKENIZER.encode("ab")
        raise AssertionError("asked too early")

    stream = decode_stream(TOKENIZER, ids(), ())
    assert [next(stream), next(stream)] == ["a", "b"]


def test_text_ends_before_the_stop():
    ids = [*TOKENIZER.encode("ab"), TOKENIZER.end_of_text, *TOKENIZER.encode("c")]
    assert "".join(decode_stream(TOKENIZER, ids, [TOKENIZER.end_of_text])) == "ab"


@pytest.mark.parametrize("prompt", ["", "def", "\0\u2581\r\n", "<|endoftext|>", "é" * 100, " "])
def test_any_prompt_is_legal_and_streaming_equals_completing(model, prompt):
    pieces = list(stream_text(model, TOKENIZER, prompt, sampling=SAMPLING, max_new_tokens=40, seed=1))
    (whole,) = complete(model, TOKENIZER, prompt, sampling=SAMPLING, max_new_tokens=40, seed=1)
    assert "".join(pieces) == whole
    assert whole
    assert all(pieces)


def test_an_empty_prompt_starts_a_document(model):
    ids = {}

    class Spy(type(model)):
        def encode(self, tokens_bt, cache=None, memory=None):
            ids.setdefault("first", tokens_bt.tolist())
            return super().encode(tokens_bt, cache)

    spy = Spy(model.config)
    spy.load_state_dict(model.state_dict())
    complete(spy, TOKENIZER, "", max_new_tokens=1)
    assert ids["first"] == [[TOKENIZER.end_of_text]]


def test_samples_differ_and_a_seed_fixes_them(model):
    ask = {"num_samples": 3, "sampling": SAMPLING, "max_new_tokens": 20}
    samples = complete(model, TOKENIZER, "x", seed=5, **ask)
    assert len(set(samples)) == 3
    assert samples == complete(model, TOKENIZER, "x", seed=5, **ask)
    assert samples != complete(model, TOKENIZER, "x", seed=6, **ask)


def test_greedy_is_the_default(model):
    assert len(set(complete(model, TOKENIZER, "x", num_samples=2, max_new_tokens=9))) == 1


def test_no_tokens_or_no_samples(model):
    assert complete(model, TOKENIZER, "x", num_samples=2, max_new_tokens=0) == ["", ""]
    with pytest.raises(ConfigError, match="num_samples"):
        complete(model, TOKENIZER, "x", num_samples=0, max_new_tokens=1)


def test_a_model_that_stops_at_once_writes_nothing():
    tokenizer = SentencePieceSpec("bpe", 290).build(["some text to learn a few pieces from\n" * 9])
    model = Transformer(
        ModelConfig(
            d_model=8, n_layers=1, n_heads=1, d_ff=8, context_length=8, vocab_size=290, tie_embeddings=False
        )
    )
    init_weights(model, seed=0)
    with torch.no_grad():
        model.head = lambda hidden: (
            torch.nn.functional.one_hot(torch.tensor(tokenizer.end_of_text), 290)
            .float()
            .expand(len(hidden), 1, 290)
        )
    assert complete(model, tokenizer, "text", num_samples=2, max_new_tokens=9) == ["", ""]
    assert list(stream_text(model, tokenizer, "text", max_new_tokens=9)) == []
