"""Continuous batching: each text is what it would be alone, whatever joins, leaves, is cancelled or shares its prompt."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from llm.errors import ConfigError, TrainingError
from llm.generation import BatchEngine, Bias, Draft, Penalties, Request, Sampling, generate, rows_within
from llm.generation.engine import GREEDY
from llm.generation.speculation import looked_up
from llm.hub import from_huggingface_state
from llm.model import ModelConfig, Transformer, init_weights
from tests.small_models import shaken

SHAPE = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48, "context_length": 64, "vocab_size": 61}
PLACES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = {**PLACES, "intermediate_size": 48, "max_position_embeddings": 64, "vocab_size": 61}
SPREAD = 0.3  # so that the most likely token stands out
# When each of these prompts comes (before which step), and how long it is; the second fills several chunks.
JOINING = {0: [5, 20], 3: [1, 7], 11: [30], 12: [2, 2, 9]}


def decoder(**changes):
    model = Transformer(ModelConfig(**{**SHAPE, "n_kv_heads": 2, **changes})).eval()
    init_weights(model, seed=0)
    return shaken(model, SPREAD)


@pytest.fixture(scope="module")
def model():
    return decoder()


def prompt(length, seed=0):
    return torch.randint(
        0, 61, (length,), generator=torch.Generator().manual_seed(100 * seed + length)
    ).tolist()


def written(engine, joining):
    """All tokens of each request, which come before the step that `joining` says."""
    found = {request: [] for requests in joining.values() for request in requests}
    step = 0
    while engine.busy or step <= max(joining):
        for request in joining.get(step, []):
            engine.add(request)
        for token in engine.step():
            found[token.request].append(token.id)
        step += 1
    return found


def alone(model, request):
    steps = generate(
        model,
        torch.tensor([request.prompt]),
        sampling=request.sampling,
        max_new_tokens=request.max_new_tokens,
        stop_ids=list(request.stop_ids),
        seed=request.seed,
    )
    return [token_b.item() for token_b in steps]


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(
    "theirs",
    [
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=61)),
        lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
        lambda: MistralForCausalLM(MistralConfig(**LLAMA, head_dim=8, sliding_window=6)),
    ],
    ids=["gpt2", "llama", "mistral"],
)
def test_ragged_requests_that_join_at_different_times_equal_transformers(theirs, rows):
    theirs = shaken(theirs().eval(), SPREAD)
    theirs.generation_config.eos_token_id = theirs.generation_config.bos_token_id = None
    config, state = from_huggingface_state(theirs.state_dict(), theirs.config.to_dict())
    ours = Transformer(config)
    ours.load_state_dict(state)
    joining = {
        step: [Request(prompt(length, number), 10 + 3 * number) for number, length in enumerate(lengths)]
        for step, lengths in JOINING.items()
    }
    for request, tokens in written(BatchEngine(ours, rows=rows, chunk=6), joining).items():
        prompt_1t = torch.tensor([request.prompt])
        expected = theirs.generate(
            prompt_1t,
            attention_mask=torch.ones_like(prompt_1t),
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        assert tokens == expected[0, len(request.prompt) :].tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position": "learned"},
        {"position": "sinusoidal"},
        {"position": "relative", "relative_buckets": 8, "relative_distance": 20},
        {"position": "none"},
        {"attention_window": 5, "global_attention_every": 2},
        {"prefix_lm": True},
    ],
    ids=lambda changes: changes.get("position", next(iter(changes), "rotary")),
)
def test_sampled_texts_equal_those_of_the_engine_for_one(changes):
    model = decoder(**changes)
    samplings = [
        Sampling(),
        Sampling(temperature=0.7, top_k=9),
        Sampling(top_p=0.8, repetition_penalty=1.3),
        Sampling(min_p=0.05),
        Sampling(temperature=0.0),
    ]
    requests = [
        Request(prompt(3 + 4 * number), 20, sampling, seed=number, stop_ids=[7])
        for number, sampling in enumerate(samplings)
    ]
    found = written(BatchEngine(model, rows=3, chunk=5), {0: requests[:2], 4: requests[2:]})
    for request, tokens in found.items():
        assert tokens == alone(model, request)


@pytest.mark.parametrize("speculate", [0, 4])
def test_prompts_that_are_read_on_both_sides_share_nothing_and_are_read_in_one_pass(speculate):
    model = decoder(prefix_lm=True)
    common = prompt(20)
    requests = [Request([*common, *prompt(length, 3)], 12) for length in (1, 4, 9, 4, 1)]
    found = written(
        BatchEngine(model, rows=2, chunk=6, speculate=speculate), {0: requests[:3], 9: requests[3:]}
    )
    for request, tokens in found.items():
        assert tokens == alone(model, request)
    causal = decoder()
    assert found[requests[0]] != alone(causal, requests[0])


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch(model):
    request = Request(prompt(6), 30, Sampling(temperature=1.2), seed=5)
    others = [Request(prompt(9, n), 4 + n, Sampling(temperature=1.2), seed=5 + n) for n in range(6)]
    expected = alone(model, request)
    for joining in (
        {0: [request]},
        {0: [*others, request]},
        {0: [request], 2: others},
        {0: others, 5: [request]},
    ):
        assert written(BatchEngine(model, rows=4, chunk=4), joining)[request] == expected
    fresh = [Request(prompt(6), 30, Sampling(temperature=1.2)) for _ in range(2)]
    first, second = written(BatchEngine(model, rows=2), {0: fresh}).values()
    assert first != second


def test_a_long_prompt_holds_nobody_up(model):
    engine = BatchEngine(model, rows=3, chunk=4)
    short, long = Request(prompt(2), 40), Request(prompt(40), 5)
    engine.add(short)
    engine.step()
    engine.add(long)
    steps = [engine.step() for _ in range(10)]
    assert all(short in {token.request for token in tokens} for tokens in steps)
    assert [long in {token.request for token in tokens} for tokens in steps] == [False] * 9 + [True]


def test_what_is_cancelled_is_gone_before_the_next_step_and_the_rest_stays_right(model):
    first, second, third, reading, waiting = (Request(prompt(length, 1), 30) for length in (4, 6, 8, 30, 3))
    engine = BatchEngine(model, rows=4, chunk=24)
    for request in (first, second, third, reading, waiting):
        engine.add(request)
    found = {request: [] for request in (first, second, third, reading, waiting)}
    for step in range(60):
        if step == 1:
            assert engine.running == 4
            engine.cancel(first)
            assert engine.running == 3
        if step == 2:
            engine.cancel(reading)
            engine.cancel(waiting)
        for token in engine.step():
            found[token.request].append(token.id)
    assert len(found[first]) == 1
    assert len(found[reading]) <= 1
    assert found[waiting] == []
    assert found[second] == alone(model, second)
    assert found[third] == alone(model, third)
    engine.cancel(second)
    assert not engine.busy


def widths_of(engine, monkeypatch):
    """How many tokens each row passes through the model."""
    widths = []
    hidden_states = engine.model.hidden_states
    monkeypatch.setattr(
        engine.model,
        "hidden_states",
        lambda x, cache, **more: (widths.append(x.shape[1]), hidden_states(x, cache, **more))[1],
    )
    return widths


def test_a_shared_beginning_is_read_once(model, monkeypatch):
    system, questions = prompt(20), [prompt(4, 3), prompt(5, 4)]
    requests = [Request([*system, *question], 6) for question in questions]
    expected = [alone(model, request) for request in requests]
    engine = BatchEngine(model, rows=3)
    widths = widths_of(engine, monkeypatch)
    assert list(written(engine, {0: requests}).values()) == expected
    assert [width for width in widths if width > 1] == [24, 5]


def test_prompts_that_come_together_are_read_at_once(model, monkeypatch):
    requests = [Request(prompt(length, length), 6) for length in (3, 9, 5, 12, 7)]
    expected = [alone(model, request) for request in requests]
    engine, shapes = BatchEngine(model, rows=5, chunk=40), []
    hidden_states = model.hidden_states
    monkeypatch.setattr(
        model,
        "hidden_states",
        lambda x, cache, **more: (shapes.append(tuple(x.shape)), hidden_states(x, cache, **more))[1],
    )
    assert list(written(engine, {0: requests}).values()) == expected
    # Three fit into the first chunk, filled up to the longest of them; the next step has room for the rest.
    assert [shape for shape in shapes if shape[1] > 1][:2] == [(3, 9), (1, 12)]


def test_cancelling_what_is_being_read_leaves_the_others_whole(model):
    requests = [Request(prompt(length, length), 6) for length in (30, 9, 5, 12)]
    expected = [alone(model, request) for request in requests]
    engine = BatchEngine(model, rows=4, chunk=4)
    for request in requests:
        engine.add(request)
    found = {request: [] for request in requests}
    for step in range(60):
        for token in engine.step():
            found[token.request].append(token.id)
        if step == 3:
            engine.cancel(requests[0])
    assert not engine.busy
    assert [found[request] for request in requests[1:]] == expected[1:]


LOOP = [5, 9, 3, 7, 7, 2]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.7, top_k=4)], ids=["greedy", "drawn"])
@pytest.mark.parametrize("given", [LOOP * 3, [4], prompt(11, 5)], ids=["loop", "one", "any"])
def test_guesses_change_nothing_but_the_steps(model, monkeypatch, sampling, given):
    request = Request(given, 22, sampling, seed=3, top_logprobs=2)
    plain = list(BatchEngine(model, rows=1).run([request]))
    engine = BatchEngine(model, rows=1, speculate=6)
    found = list(engine.run([request]))
    assert [token.id for token in found] == [token.id for token in plain]
    assert [token.finish for token in found] == [token.finish for token in plain]
    for one, other in zip(found, plain, strict=True):
        assert one.logprobs.chosen == pytest.approx(other.logprobs.chosen, abs=1e-5)
    again = Request([*given, *(token.id for token in found)][:-1], 5, seed=1)
    assert written(engine, {0: [again]})[again] == alone(model, again)  # what was overwritten is whole


def test_guesses_that_are_right_save_steps_and_stop_where_the_text_does(model):
    # A bias that outweighs all else writes the loop, whatever the weights.
    def onwards(logits_1v, new):
        wanted = LOOP[len(new) % len(LOOP)]
        return logits_1v + 1000 * torch.nn.functional.one_hot(torch.tensor([wanted]), logits_1v.shape[1])

    engine = BatchEngine(model, rows=2, speculate=5)
    engine.add(Request(LOOP * 2, 20, rules=[onwards]))
    steps = []
    while engine.busy:
        steps.append(len(engine.step()))
    assert sum(steps) == 20
    assert len(steps) <= 5
    stopped = Request(LOOP * 2, 20, stop_ids=[2], rules=[onwards])
    assert written(engine, {0: [stopped]})[stopped] == LOOP


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.7, top_k=4)], ids=["greedy", "drawn"])
@pytest.mark.parametrize("same", [True, False], ids=["the model itself", "another"])
def test_a_drafts_guesses_change_nothing_but_the_steps(model, sampling, same):
    draft = model if same else decoder(n_layers=1, context_length=32)
    requests = [Request(prompt(length, 2), 22, sampling, seed=length) for length in (3, 9, 20)]
    engine = BatchEngine(model, rows=2, speculate=4, guess=Draft(draft))
    for request in requests:
        engine.add(request)
        found, steps = [], 0
        while engine.busy:
            found += [token.id for token in engine.step()]
            steps += 1
        assert found == alone(model, request)
        if same and sampling is GREEDY:
            assert steps <= 6  # the first token, then five at a time


def test_a_draft_is_refused_where_it_cannot_write():
    with pytest.raises(ConfigError, match="draft: it must be a decoder"):
        Draft(Transformer(ModelConfig(**SHAPE, architecture="encoder")))


def test_what_followed_the_last_time():
    assert looked_up([1, 2, 3, 9, 1, 2, 3], 2) == [9, 1]
    assert looked_up([8, 2, 3, 5, 1, 2, 3, 9, 1, 2, 3], 1) == [9]
    assert looked_up([7, 2, 3, 4, 2, 3], 5) == [4, 2, 3]
    assert looked_up([1, 1, 1], 4) == [1]
    for tokens in ([], [1], [1, 2], [1, 2, 3, 4]):
        assert looked_up(tokens, 4) == []


def test_a_chat_reads_what_is_new_of_its_history_though_others_come_between(model, monkeypatch):
    engine = BatchEngine(model, rows=3)
    question = Request(prompt(12, 5), 6)
    answer = written(engine, {0: [question]})[question]
    written(engine, {0: [Request(prompt(9, 6), 4)]})
    widths = widths_of(engine, monkeypatch)
    chat = Request([*question.prompt, *answer, *prompt(3, 7)], 8)
    found = written(engine, {0: [chat]})[chat]
    assert widths[0] == 4  # the answer's last token has not been read either
    monkeypatch.undo()
    assert found == alone(model, chat)
    again = Request(question.prompt, 6)
    assert written(engine, {0: [again]})[again] == answer


def test_a_request_ends_by_a_stop_or_its_length_and_says_so(model):
    free = alone(model, Request(prompt(4), 20))
    stop = free[5]
    engine = BatchEngine(model, rows=2)
    tokens = list(engine.run([Request(prompt(4), 20, stop_ids={stop})]))
    assert [token.id for token in tokens] == free[: free.index(stop) + 1]
    assert [token.finish for token in tokens] == [None] * free.index(stop) + ["stop"]
    assert [token.finish for token in engine.run([Request(prompt(4), 2)])] == [None, "length"]


def test_logprobs_are_those_of_the_models_own_scores(model):
    request = Request(prompt(4), 5, Sampling(temperature=0.3), seed=1, top_logprobs=3, rules=[Bias({2: 3.0})])
    tokens = list(BatchEngine(model, rows=1).run([request]))
    assert len(tokens) == 5
    ids = [*request.prompt, *(token.id for token in tokens)]
    with torch.no_grad():
        logprob_tv = model(torch.tensor([ids]))[0].log_softmax(-1)[3:-1]
    for token, logprob_v in zip(tokens, logprob_tv, strict=True):
        assert token.logprobs.chosen == pytest.approx(logprob_v[token.id].item(), abs=1e-5)
        expected = logprob_v.topk(3)
        assert [id_ for id_, _ in token.logprobs.top] == expected.indices.tolist()
        assert [value for _, value in token.logprobs.top] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_rules_shift_what_is_drawn(model):
    free = Request(prompt(4), 12)
    forced = Request(prompt(4), 12, rules=[Bias({5: 1000.0})])
    banned = Request(prompt(4), 12, rules=[Bias(dict.fromkeys(set(alone(model, free)), -1000.0))])
    once = Request(prompt(4), 12, rules=[Penalties(frequency=0.0, presence=1000.0)])
    found = written(BatchEngine(model, rows=4), {0: [free, forced, banned, once]})
    assert found[forced] == [5] * 12
    assert not set(found[banned]) & set(found[free])
    assert len(set(found[once])) == 12
    logits = Penalties(frequency=0.5, presence=0.25)(torch.zeros(1, 4), [1, 3, 3])
    assert logits.tolist() == [[0.0, -0.75, 0.0, -1.25]]


def test_damaged_weights_say_so_and_clear_mends_the_engine(model):
    damaged = decoder()
    engine = BatchEngine(damaged, rows=2)
    weight = damaged.embedding.tokens.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        list(engine.run([Request(prompt(4), 5)]))
    with torch.no_grad():
        weight.copy_(kept)
    engine.clear()
    request = Request(prompt(4), 5)
    assert written(engine, {0: [request]})[request] == alone(damaged, request)


@pytest.mark.parametrize("speculate", [0, 3])
def test_a_row_that_fails_is_told_and_the_others_go_on(model, speculate):
    def raises(logits_1v, new):
        if len(new) == at:
            raise ValueError("no such rule")
        return logits_1v

    others = [Request(prompt(5), 9, Sampling(), seed=3), Request(prompt(7), 9, rules=[Bias({5: 1.0})])]
    wanted = written(BatchEngine(model, rows=3), {0: others})
    for at in (0, 2):
        bad, failed = Request(prompt(6), 9, rules=[raises]), {}
        engine = BatchEngine(model, rows=3, speculate=speculate)
        engine.on_failure = failed.__setitem__
        found = written(engine, {0: [others[0], bad], 4: [others[1]]})
        assert len(found.pop(bad)) == at
        assert found == wanted
        assert str(failed[bad]) == "no such rule"
        assert not engine.running


def test_of_rows_that_are_drawn_alike_the_one_whose_scores_are_damaged_fails_alone(model, monkeypatch):
    requests = [Request(prompt(length), 6, Sampling(), seed=length) for length in (4, 5, 6)]
    wanted = written(BatchEngine(model, rows=3), {0: requests})
    head, failed = model.head, {}

    def damaged(hidden_btd):
        logits_btv = head(hidden_btd)
        if len(logits_btv) == 3:
            logits_btv[1] = torch.nan
        return logits_btv

    monkeypatch.setattr(model, "head", damaged)
    engine = BatchEngine(model, rows=3)
    engine.on_failure = failed.__setitem__
    found = written(engine, {0: requests})
    (bad,) = failed
    assert isinstance(failed[bad], TrainingError)
    for request in set(requests) - {bad}:
        assert found[request] == wanted[request]


def test_a_row_that_fails_is_an_error_where_nobody_is_told(model):
    def raises(logits_1v, new):
        raise ValueError("no such rule")

    with pytest.raises(ValueError, match="no such rule"):
        list(BatchEngine(model, rows=2).run([Request(prompt(5), 4, rules=[raises])]))


def test_what_cannot_be_written_is_refused(model):
    engine = BatchEngine(model, rows=1)
    for tokens, length, words in (
        ([], 5, "a token"),
        ([1], 0, "a token"),
        ([1] * 60, 5, "context_length is 64"),
    ):
        with pytest.raises(ConfigError, match=words):
            engine.add(Request(tokens, length))
    assert not engine.busy
    encoder = Transformer(ModelConfig(**SHAPE, architecture="encoder"))
    with pytest.raises(ConfigError, match="only decoders"):
        BatchEngine(encoder, rows=1)


def test_rows_fit_the_memory_that_they_may_take(model):
    row_gib = 2 * 2 * 2 * 64 * 8 * 4 / 2**30  # layers, keys and values, heads, positions, width, bytes
    assert rows_within(model, 16, 5.5 * row_gib) == 5
    assert rows_within(model, 16, 5.5 * row_gib, draft=decoder(n_layers=1)) == 5
    assert rows_within(model, 16, 5.5 * row_gib, draft=model) == 4
    assert rows_within(model, 3, 1.0) == 3
    with pytest.raises(ConfigError, match="cache_gib"):
        rows_within(model, 3, row_gib / 2)
