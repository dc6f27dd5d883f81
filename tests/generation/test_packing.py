"""Packed weights: the same logits and tokens as the plain ones, whatever the head, and nothing packed off CPUs."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from llm.generation import generate, pack
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.attention import composed_attention, composes_faster

CONFIG = ModelConfig(
    d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, context_length=32, vocab_size=61, init_std=0.3
)
CONFIGS = {
    "tied, no biases": CONFIG,
    "untied": dataclasses.replace(CONFIG, tie_embeddings=False),
    "soft cap": dataclasses.replace(CONFIG, logit_soft_cap=2.0),
    "biases": dataclasses.replace(CONFIG, attention_bias=True, mlp_bias=True, activation="gelu"),
    "normalised queries": dataclasses.replace(CONFIG, qk_norm=True, activation="gelu_tanh"),
    "parallel residual": dataclasses.replace(CONFIG, residual="parallel", norm="layer"),
    "post-norm": dataclasses.replace(CONFIG, residual="post", norm="layer"),
    "relu": dataclasses.replace(CONFIG, activation="relu", mlp_bias=True),
    "an activation that can't be fused": dataclasses.replace(CONFIG, activation="relu2"),
}


def both(config, dtype, rows):
    """A plain model and a packed one of the same weights."""
    models = [Transformer(config).eval(), Transformer(config).eval()]
    for model in models:
        init_weights(model, seed=0)
        model.to(dtype)
    return models[0], pack(models[1], rows)


def ids(rows, length):
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_packed_logits_and_tokens_are_the_plain_ones(config, rows):
    plain, packed = both(config, torch.float32, rows)
    assert not any(isinstance(module, torch.nn.Linear) for module in packed.modules())
    with torch.no_grad():
        torch.testing.assert_close(packed(ids(rows, 20)), plain(ids(rows, 20)), atol=1e-5, rtol=1e-5)
    tokens = [
        torch.stack(list(generate(model, ids(rows, 4), max_new_tokens=20))) for model in (plain, packed)
    ]
    assert torch.equal(*tokens)


def test_packed_bfloat16_is_as_near_to_float32_as_the_plain_one():
    exact = both(CONFIG, torch.float32, 4)[0]
    plain, packed = both(CONFIG, torch.bfloat16, 4)
    with torch.no_grad():
        truth = exact(ids(4, 20))
        errors = [(model(ids(4, 20)).float() - truth).abs().max() for model in (plain, packed)]
    assert errors[1] <= 1.5 * errors[0]


def test_a_model_elsewhere_is_left_as_it_is():
    with torch.device("meta"):
        model = Transformer(CONFIG)
    modules = list(model.modules())
    assert list(pack(model, rows=1).modules()) == modules


@pytest.mark.parametrize("key_heads", [4, 1])
@pytest.mark.parametrize("positions", [48, 20_000], ids=["cast", "not cast"])
def test_one_query_in_bfloat16_is_composed_and_equals_the_kernel(key_heads, positions):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 1, 16, generator=generator).bfloat16()
    key, value = torch.randn(2, 2, key_heads, positions, 16, generator=generator).bfloat16()
    assert composes_faster(query, key)
    assert not composes_faster(query.float(), key.float())
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(composed_attention(query, key, value), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_type_that_the_processor_lacks_is_left_as_it_is(dtype, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    plain, same = both(CONFIG, dtype, 2)
    tokens = [torch.stack(list(generate(model, ids(2, 4), max_new_tokens=8))) for model in (plain, same)]
    assert torch.equal(*tokens)
    assert any(isinstance(module, torch.nn.Linear) for module in same.modules())
