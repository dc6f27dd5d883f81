"""A decoder that reads a prefix on both sides: what it sees there, and that a cached prompt is such a prefix."""

import dataclasses

import pytest
import torch

from llm.errors import ConfigError
from llm.generation import BatchEngine, Request, generate
from llm.model import ModelConfig, Transformer, init_weights

CONFIG = ModelConfig(
    d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, context_length=20, vocab_size=29, d_ff=48, prefix_lm=True
)
TOKENS_BT = torch.randint(0, 29, (3, 16), generator=torch.Generator().manual_seed(0))
PREFIX_B = torch.tensor([1, 7, 16])


def make(**changes):
    model = Transformer(dataclasses.replace(CONFIG, **changes)).eval()
    init_weights(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


@torch.no_grad()
def test_no_prefix_is_causal_and_all_is_an_encoder():
    model = make()
    logits_btv = model(TOKENS_BT, prefix_b=PREFIX_B)
    encoder = make(architecture="encoder", prefix_lm=False)
    torch.testing.assert_close(logits_btv[0], model(TOKENS_BT[:1])[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_btv[2], encoder(TOKENS_BT[2:])[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_prefix_sees_all_of_itself_and_nothing_behind_it():
    model = make()
    wanted_tv = model(TOKENS_BT, prefix_b=PREFIX_B)[1]
    changed_bt = TOKENS_BT.clone()
    changed_bt[1, 7:] = 3
    torch.testing.assert_close(model(changed_bt, prefix_b=PREFIX_B)[1, :7], wanted_tv[:7], rtol=0, atol=1e-5)
    changed_bt[1, 6] = (TOKENS_BT[1, 6] + 1) % 29
    assert ((model(changed_bt, prefix_b=PREFIX_B)[1, :7] - wanted_tv[:7]).abs().amax(1) > 1e-3).all()


@torch.no_grad()
def test_transformers_computes_the_same_with_such_a_mask():
    transformers = pytest.importorskip("transformers")
    from llm.hub import to_huggingface

    model = make(tie_embeddings=False, prefix_lm=False)
    state, hf_config = to_huggingface(model, model.config)
    config = transformers.LlamaConfig.from_dict(hf_config | {"attn_implementation": "eager"})
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.load_state_dict(state)
    seen_bts = torch.ones(16, 16, dtype=torch.bool).tril() | (torch.arange(16) < PREFIX_B[:, None, None])
    added = torch.zeros(3, 1, 16, 16).masked_fill(~seen_bts[:, None], torch.finfo(torch.float32).min)
    wanted = theirs(TOKENS_BT, attention_mask=added).logits
    difference = model(TOKENS_BT, prefix_b=PREFIX_B) - wanted
    assert difference.abs().max() <= 2e-6 * wanted.abs().max()


@torch.no_grad()
def test_a_cached_prompt_is_a_prefix():
    model = make()
    prompt_bt = TOKENS_BT[:, :5]
    tokens_bt = prompt_bt
    for _ in range(10):
        logits_btv = model(tokens_bt, prefix_b=torch.full((3,), 5))
        tokens_bt = torch.cat([tokens_bt, logits_btv[:, -1:].argmax(-1)], dim=1)
    steps = torch.stack(list(generate(model, prompt_bt, max_new_tokens=10)), dim=1)
    assert torch.equal(steps, tokens_bt[:, 5:])
    causal = torch.stack(list(generate(make(prefix_lm=False), prompt_bt, max_new_tokens=10)), dim=1)
    assert not torch.equal(steps, causal)


@torch.no_grad()
def test_prompts_in_a_batch_are_prefixes_too():
    model, prompts = make(), [TOKENS_BT[0, :5].tolist(), TOKENS_BT[1, :9].tolist()]
    found: dict[int, list[int]] = {5: [], 9: []}
    for token in BatchEngine(model, rows=2).run([Request(prompt, 6) for prompt in prompts]):
        found[len(token.request.prompt)].append(token.id)
    for prompt in prompts:
        alone = torch.cat(list(generate(model, torch.tensor([prompt]), max_new_tokens=6)))
        assert found[len(prompt)] == alone.tolist()


def test_it_is_for_decoders():
    with pytest.raises(ConfigError, match="prefix_lm=True: is for architecture=decoder, not encoder"):
        make(architecture="encoder")
