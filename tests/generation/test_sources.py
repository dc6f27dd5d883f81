"""Encoder-decoders in the batched engine: each target is what transformers, and the engine for one, write for its source."""

import pytest
import torch
from test_batching import SHAPE, SPREAD, written
from transformers import T5Config, T5ForConditionalGeneration

from llm.errors import ConfigError
from llm.generation import GREEDY, BatchEngine, Request, Sampling, generate, rows_within, translate
from llm.generation.offline import BatchWriter, Prompt
from llm.hub import from_huggingface_state
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.cache import CachePool
from llm.tokenizer import ByteSpec, start_token
from tests.small_models import shaken

SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 61}


@pytest.fixture(scope="module")
def both():
    theirs = T5ForConditionalGeneration(T5Config(**SIZES, decoder_start_token_id=0, pad_token_id=0)).eval()
    theirs = shaken(theirs, SPREAD)
    theirs.generation_config.eos_token_id = None
    config, state = from_huggingface_state(
        theirs.state_dict(), {**theirs.config.to_dict(), "n_positions": 64}
    )
    ours = Transformer(config).eval()
    ours.load_state_dict(state)
    return theirs, ours


def source(length, seed=0):
    generator = torch.Generator().manual_seed(100 * seed + length)
    return torch.randint(1, 61, (length,), generator=generator).tolist()


def alone(model, request):
    with torch.no_grad():
        memory = model.encode_source(torch.tensor([request.source]))
    steps = generate(
        model,
        torch.tensor([request.prompt]),
        sampling=request.sampling,
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        memory=memory,
    )
    return [token_b.item() for token_b in steps]


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_sources_of_any_length_that_come_at_any_time_equal_transformers(both, rows):
    theirs, ours = both
    joining = {
        step: [
            Request([0], 8 + 3 * number, source=source(length, number))
            for number, length in enumerate(lengths)
        ]
        for step, lengths in {0: [5, 20], 3: [1, 7], 6: [30, 30, 2]}.items()
    }
    for request, tokens in written(BatchEngine(ours, rows=rows, chunk=24), joining).items():
        source_1s = torch.tensor([request.source])
        expected = theirs.generate(
            source_1s,
            attention_mask=torch.ones_like(source_1s),
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
        )
        assert tokens == expected[0, 1:].tolist()


def test_drawn_targets_are_those_of_the_engine_for_one(both):
    _, model = both
    requests = [
        Request([0], 15, Sampling(temperature=1.3, top_k=20), seed=number, source=source(3 + 5 * number))
        for number in range(5)
    ]
    found = written(BatchEngine(model, rows=3), {0: requests[:2], 4: requests[2:]})
    assert all(tokens == alone(model, request) for request, tokens in found.items())
    assert len({tuple(tokens) for tokens in found.values()}) == 5


def test_a_source_is_read_once_for_all_texts_that_are_written_of_it(both, monkeypatch):
    _, model = both
    shapes, encode = [], model.encode_source
    monkeypatch.setattr(
        model,
        "encode_source",
        lambda x, documents=None: (shapes.append(tuple(x.shape)), encode(x, documents))[1],
    )
    several = [Request([0], 9, Sampling(), seed=seed, source=source(40)) for seed in range(4)]
    engine = BatchEngine(model, rows=4)
    found = written(engine, {0: several, 20: [Request([0], 9, Sampling(), seed=0, source=source(40))]})
    assert shapes == [(1, 40)]
    assert len({tuple(tokens) for tokens in list(found.values())[:4]}) > 1
    first, *_, last = found.values()
    assert last == first
    other = Request([0], 9, source=source(40, 1))
    assert written(engine, {0: [other]})[other] == alone(model, other)


def test_what_has_no_source_or_too_long_a_one_is_refused(both):
    _, model = both
    engine = BatchEngine(model, rows=1)
    for given, words in (
        ([], "needs a source"),
        (source(model.config.context_length + 1), "context_length is 64"),
    ):
        with pytest.raises(ConfigError, match=words):
            engine.add(Request([0], 2, source=given))
    row = 2 * CachePool.row_bytes(model.config, torch.float32)
    assert rows_within(model, 9, 3 * row / 2**30) == 3


def test_a_file_of_sources_is_written_in_batches():
    tokenizer = ByteSpec().build()
    shape = {**SHAPE, "vocab_size": tokenizer.vocab_size, "architecture": "encoder_decoder"}
    model = Transformer(ModelConfig(**shape)).eval()
    init_weights(model, seed=0)
    shaken(model, SPREAD)
    texts = ["one two", "", "a longer source than these", "x" * 500]
    writer = BatchWriter(tokenizer, GREEDY, 10, 1, seed=3)
    engine = BatchEngine(model, rows=3)
    found = {one.prompt.text: one.texts[0] for one in writer.write(engine, map(Prompt, range(4), texts))}
    end = tokenizer.end_of_text
    for text in texts[:1] + texts[2:]:
        read = text[: SHAPE["context_length"] - 1]  # a byte a token, and the end of text
        assert found[text] == translate(model, tokenizer, [read], max_new_tokens=10)[0]
    request = Request([start_token(tokenizer)], 10, stop_ids=[end], source=[end, end])
    ids = [token.id for token in BatchEngine(model, rows=1).run([request])]
    assert found[""] == tokenizer.decode(ids)
