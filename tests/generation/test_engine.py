"""The cached engine: equal to the uncached loop and to transformers, beyond the context, seeded, polite."""

import itertools

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from llm.errors import ConfigError
from llm.generation import Sampling, generate
from llm.hub import from_huggingface_state
from llm.model import ModelConfig, Transformer, init_weights
from tests.small_models import shaken

SPREAD = 0.3  # so that the most likely token stands out
CONFIG = ModelConfig(
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_ff=48,
    context_length=16,
    vocab_size=61,
    qk_norm=True,
    dropout=0.5,
)


@pytest.fixture(scope="module")
def model():
    model = Transformer(CONFIG)
    init_weights(model, seed=0)
    return shaken(model, SPREAD).eval()


def prompts(rows, length, vocab=61, seed=0):
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


def tokens(*args, **kwargs):
    return torch.stack(list(generate(*args, **kwargs)), dim=1)


@torch.no_grad()
def uncached(model, tokens_bt, steps):
    """The most likely tokens by whole forward passes, by the rule that the engine states for a full context."""
    context, first, start = model.config.context_length, tokens_bt.shape[1], max(0, tokens_bt.shape[1] - 16)
    for _ in range(steps):
        if tokens_bt.shape[1] - start > context:
            start = tokens_bt.shape[1] - context // 2
        logits = model(tokens_bt[:, start:])[:, -1]
        tokens_bt = torch.cat([tokens_bt, logits.argmax(-1, keepdim=True)], dim=1)
    return tokens_bt[:, first:]


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 40])
def test_greedy_equals_the_uncached_loop_within_and_beyond_the_context(model, length):
    prompt = prompts(3, length)
    found = tokens(model, prompt, max_new_tokens=40)
    assert found.tolist() == uncached(model, prompt, 40).tolist()
    assert len(set(found[0].tolist())) > 3


@pytest.mark.parametrize(
    "theirs",
    [
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=61)),
        lambda: Qwen3ForCausalLM(
            Qwen3Config(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                intermediate_size=48, max_position_embeddings=64, vocab_size=61, tie_word_embeddings=True,
            )
        ),
    ],
    ids=["gpt2", "qwen3"],
)  # fmt: skip
def test_greedy_equals_transformers(theirs):
    theirs = shaken(theirs().eval(), SPREAD)
    theirs.generation_config.eos_token_id = theirs.generation_config.bos_token_id = None
    config, state = from_huggingface_state(theirs.state_dict(), theirs.config.to_dict())
    ours = Transformer(config)
    ours.load_state_dict(state)
    prompt = prompts(2, 7)
    mask = torch.ones_like(prompt)
    expected = theirs.generate(
        prompt, attention_mask=mask, max_new_tokens=50, do_sample=False, pad_token_id=0
    )[:, 7:]
    assert tokens(ours, prompt, max_new_tokens=50).tolist() == expected.tolist()


def test_only_new_tokens_pass_through_the_model(model, monkeypatch):
    widths = []
    hidden_states = model.hidden_states
    monkeypatch.setattr(
        model,
        "hidden_states",
        lambda x, cache, memory: (widths.append(x.shape[1]), hidden_states(x, cache))[1],
    )
    tokens(model, prompts(1, 5), max_new_tokens=30)
    assert widths == [5, *[1] * 11, 8, *[1] * 8, 8, *[1] * 8]


def test_a_seed_fixes_the_tokens_and_the_global_generator_is_left_alone(model):
    sampling, prompt = Sampling(temperature=1.5), prompts(2, 4)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other, fresh, fresh2 = (
        tokens(model, prompt, sampling=sampling, max_new_tokens=30, seed=seed)
        for seed in (3, 3, 4, None, None)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    assert fresh.tolist() != fresh2.tolist()
    assert first[0].tolist() != first[1].tolist()


def test_modes_are_restored_between_steps_and_dropout_is_off(model):
    training = Transformer(CONFIG)
    training.load_state_dict(model.state_dict())
    training.train()
    frozen = next(module for module in training.modules() if isinstance(module, torch.nn.Dropout))
    frozen.eval()
    modes = [module.training for module in training.modules()]
    steps = generate(training, prompts(1, 4), max_new_tokens=20)
    found = []
    for token in steps:
        found.append(token.item())
        assert [module.training for module in training.modules()] == modes
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert found == tokens(model, prompts(1, 4), max_new_tokens=20)[0].tolist()
    training(prompts(2, 8)).sum().backward()
    assert training.embedding.tokens.weight.grad.abs().sum() > 0


def test_an_error_or_an_abandoned_stream_restores_the_mode(model):
    training = Transformer(CONFIG)
    training.load_state_dict(model.state_dict())
    training.train()
    next(generate(training, prompts(1, 4), max_new_tokens=20))
    assert all(module.training for module in training.modules())
    with pytest.raises(IndexError):
        next(generate(training, torch.tensor([[61]]), max_new_tokens=1))
    assert all(module.training for module in training.modules())


def test_rows_stop_on_their_own_and_the_stream_with_the_last(model):
    prompt = prompts(3, 4)
    free = tokens(model, prompt, max_new_tokens=20)
    stop = free[0, 2].item()
    found = tokens(model, prompt, max_new_tokens=20, stop_ids=[stop])
    for row, expected in zip(found.tolist(), free.tolist(), strict=True):
        end = expected.index(stop) if stop in expected else len(expected)
        assert row[: end + 1] == expected[: len(row)][: end + 1]
        assert set(row[end:]) <= {stop}
    assert (
        len(tokens(model, prompt[:1], max_new_tokens=20, stop_ids=[stop])[0])
        == free[0].tolist().index(stop) + 1
    )


def test_a_prompt_that_ends_with_a_stop_goes_on(model):
    prompt = prompts(1, 4)
    found = tokens(model, prompt, max_new_tokens=5, stop_ids=[prompt[0, -1].item()])
    assert found.tolist()[0][0] == uncached(model, prompt, 1).item()


def test_nothing_asked_nothing_given_and_wrong_asks_refused(model):
    assert list(generate(model, prompts(1, 4), max_new_tokens=0)) == []
    with pytest.raises(ConfigError, match="max_new_tokens"):
        next(generate(model, prompts(1, 4), max_new_tokens=-1))
    with pytest.raises(ConfigError, match="at least one token"):
        next(generate(model, prompts(1, 0), max_new_tokens=1))


def test_a_context_of_one_token_works():
    model = Transformer(ModelConfig(d_model=8, n_layers=1, n_heads=1, d_ff=8, context_length=1, vocab_size=5))
    init_weights(model, seed=0)
    steps = generate(model, torch.tensor([[1, 2]]), max_new_tokens=6)
    assert len(list(itertools.islice(steps, 9))) == 6
