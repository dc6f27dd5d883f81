"""Initial values: a function of seed and name alone, of the promised spread."""

import math

import pytest
import torch

from llm.model import ModelConfig, Transformer, init_weights, initial_value

CONFIG = ModelConfig(d_model=64, n_layers=4, n_heads=4, vocab_size=128, tie_embeddings=False, mlp_bias=True)


def initial(config=CONFIG, seed=0):
    model = Transformer(config)
    init_weights(model, seed)
    return dict(model.named_parameters())


def test_values_follow_from_seed_and_name():
    torch.manual_seed(1)
    first = initial()
    torch.manual_seed(2)
    second, other = initial(), initial(seed=1)
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert torch.equal(value, initial_value(name, value.shape, CONFIG, 0))
        random = value.dim() > 1
        assert torch.equal(value, other[name]) != random, name


def test_no_two_tensors_are_alike():
    values = [value.flatten()[:8].tolist() for value in initial().values() if value.dim() > 1]
    assert len({tuple(value) for value in values}) == len(values)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    initial_value("stack.blocks.0.attention.query.weight", torch.Size((4, 4)), CONFIG, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_tensor_has_its_spread():
    for name, value in initial().items():
        if value.dim() == 1:
            assert torch.equal(value, torch.full_like(value, 1.0 if "norm" in name else 0.0)), name
            continue
        output = name.endswith(("output.weight", "down.weight"))
        wanted = 0.02 / math.sqrt(8) if output else 0.02
        assert value.std().item() == pytest.approx(wanted, rel=0.06), name


def test_outputs_can_start_at_zero():
    values = initial(ModelConfig(d_model=64, n_layers=2, n_heads=4, vocab_size=128, zero_init_outputs=True))
    outputs = [value for name, value in values.items() if name.endswith(("output.weight", "down.weight"))]
    assert len(outputs) == 4
    assert all(not value.any() for value in outputs)


def test_a_fresh_model_knows_nothing():
    """Its loss is that of guessing evenly."""
    model = Transformer(CONFIG)
    init_weights(model, seed=0)
    tokens_bt = torch.randint(0, 128, (4, 64), generator=torch.Generator().manual_seed(0))
    logits_btv = model(tokens_bt)
    loss = torch.nn.functional.cross_entropy(logits_btv.flatten(0, 1), tokens_bt.flatten())
    assert loss.item() == pytest.approx(math.log(128), abs=0.1)


def test_wrapped_models_start_alike():
    model = Transformer(CONFIG)
    init_weights(torch.compile(model), seed=0)
    for name, value in initial().items():
        assert torch.equal(model.get_parameter(name), value), name


def test_the_ambient_device_and_dtype_do_not_matter():
    name, shape = "stack.blocks.0.attention.query.weight", torch.Size((4, 4))
    with torch.device("meta"):
        value = initial_value(name, shape, CONFIG, 0)
    assert torch.equal(value, initial_value(name, shape, CONFIG, 0))
