"""Counts against the model itself and against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llm.model import (
    ModelConfig,
    Transformer,
    flops_per_token,
    least_parameters,
    parameter_count,
    sequence_flops,
)

CONFIGS = {
    "nano": ModelConfig(n_kv_heads=2, d_ff=704, vocab_size=512, qk_norm=True),
    "gpt": ModelConfig(
        norm="layer",
        position="learned",
        activation="gelu",
        attention_bias=True,
        mlp_bias=True,
        vocab_size=512,
    ),
    "untied": ModelConfig(tie_embeddings=False, head_dim=32, n_kv_heads=1, vocab_size=512, residual="post"),
}


# By hand, of width 256 and 6 layers: embeddings and the last norm, then what each layer has.
SIZES = {
    # queries and outputs, keys and values of two heads, three matrices, two norms and two of a head.
    "nano": 512 * 256 + 256 + 6 * (2 * 256**2 + 2 * 256 * 128 + 3 * 256 * 704 + 2 * 256 + 2 * 64),
    # also 256 positions; four matrices and their biases, two matrices and theirs, two norms with biases.
    "gpt": (512 + 256) * 256 + 2 * 256 + 6 * (4 * (256**2 + 256) + 2 * 256 * 1024 + 1024 + 256 + 4 * 256),
    # embeddings twice; four heads of 32, one of keys and one of values, three matrices of 704; two norms and no last one.
    "untied": 2 * 512 * 256 + 6 * (2 * 256 * 128 + 2 * 256 * 32 + 3 * 256 * 704 + 2 * 256),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_that_are_counted_by_hand(name):
    assert parameter_count(CONFIGS[name]) == SIZES[name]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_least_is_nearly_all(config):
    assert 0.9 * parameter_count(config) < least_parameters(config) <= parameter_count(config)


def test_gpt2_small_has_its_known_size():
    config = ModelConfig(
        d_model=768,
        n_layers=12,
        n_heads=12,
        context_length=1024,
        vocab_size=50257,
        norm="layer",
        position="learned",
        activation="gelu_tanh",
        attention_bias=True,
        mlp_bias=True,
    )
    assert parameter_count(config) == 124_439_808


def counted(config, length, training):
    with torch.device("meta"):
        model = Transformer(config)
        tokens_bt = torch.zeros(2, length, dtype=torch.long)
    # The decomposed kernel, whose products the counter sees one by one: the fused ones recompute in the backward pass.
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        logits_btv = model(tokens_bt)
        if training:
            logits_btv.sum().backward()
    return counter.get_total_flops() / tokens_bt.numel()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("length", [256, 64])
def test_operations_are_those_that_torch_counts(config, training, length):
    assert flops_per_token(config, training, length) == pytest.approx(
        counted(config, length, training), rel=0.01
    )


@pytest.mark.parametrize("training", [False, True])
def test_a_source_and_its_target_are_counted_by_their_lengths(training):
    config = ModelConfig(
        architecture="encoder_decoder", n_encoder_layers=3, n_layers=2, n_kv_heads=2, vocab_size=512, d_ff=512
    )
    with torch.device("meta"):
        model = Transformer(config)
        target_bt, source_bs = (torch.zeros(1, length, dtype=torch.long) for length in (48, 160))
        positions_bk = torch.zeros(1, 20, dtype=torch.long)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        logits_bkv = model(target_bt, source_bs=source_bs, positions_bk=positions_bk)
        if training:
            logits_bkv.sum().backward()
    assert sequence_flops(config, 48, read=160, scored=20, training=training) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )
