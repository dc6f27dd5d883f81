"""The composed model: every combination of parts runs, is causal, and fails clearly on too long an input."""

import itertools

import pytest
import torch

from llm.errors import ConfigError
from llm.model import KVCache, ModelConfig, RopeScaling, Transformer, init_weights

SIZES = {"d_model": 16, "n_layers": 2, "n_heads": 4, "context_length": 12, "vocab_size": 19, "d_ff": 20}
PARTS = {
    "norm": ("layer", "rms"),
    "residual": ("pre", "post", "parallel"),
    "position": ("learned", "sinusoidal", "rotary", "none"),
    "activation": ("gelu", "gelu_tanh", "relu", "relu2", "swiglu"),
    "n_kv_heads": (4, 2, 1),
}
COMBINATIONS = [dict(zip(PARTS, values, strict=True)) for values in itertools.product(*PARTS.values())]


def build(**changes):
    model = Transformer(ModelConfig(**(SIZES | changes)))
    init_weights(model, seed=0)
    return model.eval()


def tokens(batch=2, length=12, seed=0):
    return torch.randint(0, 19, (batch, length), generator=torch.Generator().manual_seed(seed))


def variants(index):
    """The remaining switches, spread over the combinations."""
    return {
        "qk_norm": index % 2 == 0,
        "tie_embeddings": index % 3 == 0,
        "attention_bias": index % 5 == 0,
        "mlp_bias": index % 7 == 0,
        "norm_bias": index % 4 != 0,
        "scale_embeddings": index % 11 == 0,
        "logit_soft_cap": 5.0 if index % 6 == 0 else None,
        "head_dim": 6 if index % 9 == 0 else None,
    }


@pytest.mark.parametrize("residual", PARTS["residual"])
def test_every_combination_learns_is_causal_and_caches(residual):
    for index, parts in enumerate(COMBINATIONS):
        if parts["residual"] != residual:
            continue
        model = build(**parts, **variants(index), init_std=0.2)
        logits_btv = model(tokens())
        logits_btv.logsumexp(-1).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters()), parts
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters()), parts
        with torch.no_grad():
            check_causality(model, logits_btv, parts)
            check_cache(model, logits_btv, parts)


def check_causality(model, logits_btv, parts):
    changed_bt = tokens()
    changed_bt[:, 7:] = (changed_bt[:, 7:] + 1) % 19
    moved = (model(changed_bt) - logits_btv).abs().amax(dim=(0, 2))
    assert moved[:7].max() == 0, parts
    assert moved[7:].min() > 1e-5, parts


def check_cache(model, logits_btv, parts):
    """A prompt, a second piece of several tokens, then token by token, give what one pass gives."""
    cache = KVCache(model.config, 2)
    pieces = tokens().split([4, 3, 1, 1, 1, 1, 1], dim=1)
    cached_btv = torch.cat([model(piece_bt, cache=cache) for piece_bt in pieces], dim=1)
    assert (cached_btv - logits_btv).abs().max() <= 2e-6 * logits_btv.abs().max(), parts


def test_orders_are_told_apart_by_position_alone():
    """Without positions and a causal mask's help, swapping earlier tokens of a one-layer model changes nothing."""
    swapped_bt = tokens()[:, [1, 0, *range(2, 12)]]
    for position, told_apart in [("none", False), ("learned", True), ("sinusoidal", True), ("rotary", True)]:
        model = build(n_layers=1, position=position, init_std=0.2).double()
        moved = (model(swapped_bt) - model(tokens()))[:, -1].abs().max()
        assert (moved > 1e-9) == told_apart, position


def test_an_input_longer_than_the_context_is_refused():
    model = build()
    with pytest.raises(ConfigError, match="13 tokens do not fit the model's context_length of 12"):
        model(tokens(length=13))


def test_dropout_acts_in_training_alone():
    model = build(dropout=0.5)
    assert torch.equal(model(tokens()), model(tokens()))
    model.train()
    assert not torch.equal(model(tokens()), model(tokens()))


def test_the_soft_cap_bounds_logits_smoothly():
    free, capped = build(init_std=1.0), build(init_std=1.0, logit_soft_cap=3.0)
    assert free(tokens()).abs().max() > 3
    assert torch.allclose(capped(tokens()), 3 * torch.tanh(free(tokens()) / 3))


def test_heads_and_hidden_states_compose():
    model = build()
    hidden_btd = model.hidden_states(tokens())
    assert hidden_btd.shape == (2, 12, 16)
    assert torch.equal(model.head(hidden_btd), model(tokens()))


def test_tied_weights_have_one_name():
    assert "unembedding.weight" not in build(tie_embeddings=True).state_dict()
    assert "unembedding.weight" in build(tie_embeddings=False).state_dict()


@pytest.mark.parametrize("position", ["rotary", "sinusoidal", "learned"])
def test_a_model_born_on_meta_equals_one_born_here(position):
    scaling = RopeScaling(original_context_length=4) if position == "rotary" else None
    here = build(position=position, rope_scaling=scaling)
    with torch.device("meta"):
        there = Transformer(here.config)
    there = there.to_empty(device="cpu").eval()
    there.load_state_dict(here.state_dict())
    assert torch.equal(there(tokens()), here(tokens()))


def test_tables_survive_a_cast_and_back():
    model = build()
    before = model(tokens())
    exact = model.stack.rotary.cos_pe.clone()
    model.to(torch.bfloat16)
    model.to(torch.float32)
    assert torch.equal(model.stack.rotary.cos_pe, exact)
    assert (model(tokens()) - before).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_model_runs_in_other_dtypes(dtype):
    model = build(qk_norm=True, n_kv_heads=2).to(dtype)
    with torch.no_grad():
        assert model(tokens()).dtype == dtype
        assert model(tokens(), cache=KVCache(model.config, 2, dtype=dtype)).dtype == dtype


def test_autocast_runs_in_its_dtype():
    model = build(qk_norm=True, n_kv_heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        logits_btv = model(tokens())
    assert logits_btv.dtype == torch.bfloat16
    assert (logits_btv - model(tokens())).abs().max() < 0.05


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{"qk_norm": True, "n_kv_heads": 2}, {"norm": "layer", "position": "learned", "residual": "parallel"}],
)
def test_the_model_is_one_graph(changes, autocast):
    """Traced whole, by the compiler's front end alone (its back end takes half a minute)."""
    model = build(**changes)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.allclose(compiled(tokens()), model(tokens()), atol=1e-2 if autocast else 1e-6)
