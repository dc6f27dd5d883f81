"""Streaming text: exact bytes, whole characters, any prompt, samples in one batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.errors import ConfigError
from llm.generation import (
    BatchEngine,
    Request,
    Sampling,
    TextWriter,
    Token,
    complete,
    decode_stream,
    generate,
    stream_text,
    translate,
    write_texts,
)
from llm.generation.context import ContextError
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import ByteSpec, SentencePieceSpec, start_token
from llm.tokenizer.chat import PAIR, with_end

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
        def hidden_states(self, tokens_bt, cache=None, memory=None):
            ids.setdefault("first", tokens_bt.tolist())
            return super().hidden_states(tokens_bt, cache)

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


def test_translations_of_sources_of_several_lengths_are_those_of_transformers():
    from transformers import AutoConfig, MarianMTModel

    from llm.hub import to_huggingface

    config = ModelConfig(
        architecture="encoder_decoder",
        d_model=32,
        n_layers=2,
        n_heads=2,
        d_ff=64,
        context_length=48,
        vocab_size=TOKENIZER.vocab_size,
        norm="layer",
        norm_eps=1e-5,
        residual="post",
        position="sinusoidal",
        attention_bias=True,
        mlp_bias=True,
        activation="relu",
        scale_embeddings=True,
        init_std=0.3,
    )
    model = Transformer(config).eval()
    init_weights(model, 0)
    state, keys = to_huggingface(model, config, model_type="marian")
    theirs = MarianMTModel(AutoConfig.for_model(**keys)).eval()
    theirs.load_state_dict(state, strict=False)
    sources = ["a short one", "one that is rather longer", "x"]
    rows = [[*TOKENIZER.encode(source), TOKENIZER.end_of_text] for source in sources]
    longest = max(map(len, rows))
    input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    present = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    wanted = theirs.generate(
        input_ids,
        attention_mask=present,
        decoder_start_token_id=start_token(TOKENIZER),
        eos_token_id=TOKENIZER.end_of_text,
        pad_token_id=TOKENIZER.end_of_text,
        bad_words_ids=None,
        num_beams=1,
        do_sample=False,
        max_new_tokens=30,
    )
    texts = [TOKENIZER.decode(row) for row in wanted[:, 1:].tolist()]
    assert translate(model, TOKENIZER, sources, max_new_tokens=30) == texts
    with pytest.raises(ContextError, match="The source has 49 tokens; the model's context_length is 48"):
        translate(model, TOKENIZER, ["short", "x" * 48], max_new_tokens=1)


def test_targets_of_pairs_end_within_the_context_whether_text_or_ids_are_given(model):
    tokenizer = TOKENIZER.with_chat_template(with_end(PAIR, TOKENIZER))
    ids, how = [*tokenizer.encode("a text"), tokenizer.end_of_text], {"sampling": SAMPLING, "seed": 1}
    drawn = generate(model, torch.tensor([ids]), max_new_tokens=12 - len(ids), **how)
    written = [token_b.item() for token_b in drawn]
    assert tokenizer.end_of_text not in written
    for prompt in ("a text", ids):
        assert complete(model, tokenizer, prompt, max_new_tokens=40, **how) == [tokenizer.decode(written)]
        assert "".join(stream_text(model, tokenizer, prompt, max_new_tokens=40, **how)) == tokenizer.decode(
            written
        )
    for prompt in ("a longer text", ids * 2):
        with pytest.raises(ContextError, match="1 more; the model's context_length is 12"):
            complete(model, tokenizer, prompt, max_new_tokens=1)


def tokens_of(ids, finish):
    request = Request([1], len(ids))
    return [Token(request, id_, None, finish if n == len(ids) else None) for n, id_ in enumerate(ids, 1)]


def test_a_writer_takes_tokens_up_to_a_stop_and_says_at_the_last_what_it_held_back():
    half = TOKENIZER.encode("a😀")[:-1]
    writer = TextWriter(TOKENIZER)
    assert [writer.take(token) for token in tokens_of(half, "length")] == ["a", "", "", "\ufffd"]
    writer = TextWriter(TOKENIZER)
    stopped = tokens_of([*half, TOKENIZER.end_of_text], "stop")
    assert [writer.take(token) for token in stopped] == ["a", "", "", "", "\ufffd"]
    writer = TextWriter(TOKENIZER, ["bcd"])
    assert [writer.take(token) for token in tokens_of(TOKENIZER.encode("abc"), "length")] == ["a", "", "bc"]


def test_many_requests_are_written_each_up_to_its_stop(model):
    how = {"sampling": SAMPLING, "max_new_tokens": 9}
    asked = [
        Request(TOKENIZER.encode(text), **how, seed=seed) for seed, text in enumerate(("abc", "d", "ef"))
    ]
    alone = [complete(model, TOKENIZER, request.prompt, seed=request.seed, **how)[0] for request in asked]
    engine = BatchEngine(model, rows=2)
    assert write_texts(engine, {request: TextWriter(TOKENIZER) for request in asked}) == alone
    stop = alone[1][2]
    steps, step = [], engine.step
    engine.step = lambda: steps.append(step()) or steps[-1]
    found = write_texts(engine, {asked[1]: TextWriter(TOKENIZER, [stop])})
    assert found == [alone[1][: alone[1].index(stop)]]
    assert len(steps) < 9
    assert not engine.busy
    assert write_texts(engine, {}) == []


@given(st.text(alphabet="ab é"), st.lists(st.text(alphabet="ab é", min_size=1, max_size=4), max_size=3))
def test_a_writer_ends_at_the_first_stop_and_holds_no_more_back_than_it_must(text, stops):
    tokenizer = ByteSpec().build()
    writer = TextWriter(tokenizer, stops)
    said = ""
    for id_ in tokenizer.encode(text):
        said += writer.add(id_)
        if writer.stopped:
            break
    stopped = writer.stopped
    said += writer.finish()
    ends = [end for stop in stops if (end := text.find(stop)) >= 0]
    assert stopped == bool(ends)
    # Of several stops, the one that is whole first decides.
    whole = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=len(text))
    assert said == text[: min([text.find(stop) for stop in stops if stop in text[:whole]], default=len(text))]
    assert TextWriter(tokenizer, ["ab"]).add(tokenizer.encode("b")[0]) == "b"
