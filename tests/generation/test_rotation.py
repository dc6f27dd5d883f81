"""Rotated streams: what a model computes stays, its blocks read rotated inputs, and what can't be rotated is left alone."""

import copy
import dataclasses

import pytest
import torch
from test_packing import CONFIG, CONFIGS

from llm.adapter import Switched
from llm.generation.rotation import BLOCK, RotatedLinear, Rotation, rotate_stream
from llm.model import Transformer, init_weights
from tests.small_models import shaken

WIDE = dataclasses.replace(CONFIG, d_model=128)  # rotated by blocks of 16, and so are heads of 32
ROTATABLE = {name: config for name, config in CONFIGS.items() if config.residual != "post"} | {
    "layer norms": dataclasses.replace(CONFIG, norm="layer"),
    "layer norms with biases": dataclasses.replace(CONFIG, norm="layer", norm_bias=True, mlp_bias=True),
    "norm of embeddings": dataclasses.replace(CONFIG, norm="layer", embedding_norm=True),
    "encoder": dataclasses.replace(CONFIG, architecture="encoder"),
    "queries of one head": dataclasses.replace(CONFIG, n_kv_heads=1),
}


def model_of(config):
    model = Transformer(config).eval()
    init_weights(model, seed=0)
    return shaken(model, 0.3)


def layers_that_read_rotated(model):
    return {name.split(".")[-1] for name, part in model.named_modules() if isinstance(part, RotatedLinear)}


@pytest.mark.parametrize("size", [512, 4096, 768, 128, 96, 64, 32, 7])
def test_a_rotation_spreads_evenly_and_undoes_itself(size):
    rotation = Rotation(size)
    x = torch.randn(3, size)
    torch.testing.assert_close(rotation(rotation(x)), x, atol=1e-5, rtol=0)
    spread = rotation(torch.eye(size)[0])
    assert (spread != 0).sum() == rotation.block <= BLOCK
    torch.testing.assert_close(spread.abs().max(), torch.tensor(rotation.block**-0.5))
    alike = torch.full((size,), 3.0)
    assert rotation.keeps_mean == torch.allclose(rotation(alike), alike)


@torch.no_grad()
@pytest.mark.parametrize("config", ROTATABLE.values(), ids=ROTATABLE.keys())
def test_a_rotated_model_computes_what_it_did(config):
    model = model_of(dataclasses.replace(config, d_model=128))
    tokens_bt = torch.randint(0, 61, (3, 20), generator=torch.Generator().manual_seed(1))
    hidden_btd, logits_btv = model.hidden_states(tokens_bt), model(tokens_bt)
    rotate_stream(model)
    readers = {"query", "key", "value", "output", "up"} | ({"gate"} if "glu" in config.activation else set())
    assert layers_that_read_rotated(model) == readers
    for now, before in ((model.hidden_states(tokens_bt), hidden_btd), (model(tokens_bt), logits_btv)):
        assert (now - before).norm() < 1e-5 * before.norm()


@torch.no_grad()
def test_outliers_of_the_stream_are_spread():
    model = model_of(WIDE)
    model.embedding.tokens.weight[:, 5] = 100.0
    seen = []
    for rotated in (False, True):
        if rotated:
            rotate_stream(model)
        block = model.stack.blocks[0]
        handle = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(torch.arange(20)[None])
        handle.remove()
    plain, rotated = (x.abs().amax() / x.square().mean().sqrt() for x in seen)
    assert rotated < 0.5 * plain


def with_adapter():
    model = model_of(WIDE)
    attention = model.stack.blocks[0].attention
    attention.query = Switched(attention.query)
    return model


LEFT_ALONE = {
    "post-norm": lambda: model_of(dataclasses.replace(CONFIGS["post-norm"], d_model=128)),
    "two stacks": lambda: model_of(
        dataclasses.replace(WIDE, architecture="encoder_decoder", n_encoder_layers=2)
    ),
    "heads that end within a block": lambda: model_of(dataclasses.replace(WIDE, n_heads=16, n_kv_heads=16)),
    "a mean that would be rotated": lambda: model_of(dataclasses.replace(CONFIG, d_model=64, norm="layer")),
    "an adapter": with_adapter,
}


@pytest.mark.parametrize("make", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_what_cannot_be_rotated_is_left_alone(make):
    model = make()
    before = copy.deepcopy(model.state_dict())
    rotate_stream(model)
    assert not layers_that_read_rotated(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
