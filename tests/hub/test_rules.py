"""Which models each Hugging Face family can express, and what is said of those it cannot."""

import dataclasses

import pytest
import torch

from llm.errors import CheckpointError, ConfigError
from llm.hub import FAMILIES, to_huggingface
from llm.model import ModelConfig, RopeScaling, Transformer, init_weights

SIZES = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "context_length": 8, "vocab_size": 11}
LLAMA = ModelConfig(**SIZES, tie_embeddings=False)
QWEN3 = dataclasses.replace(LLAMA, qk_norm=True)
GPT2 = ModelConfig(
    **SIZES, norm="layer", position="learned", activation="gelu_tanh", attention_bias=True, mlp_bias=True
)


def convert(config, **options):
    model = Transformer(config)
    init_weights(model, seed=0)
    return to_huggingface(model, config, **options)


@pytest.mark.parametrize(
    ("config", "model_type"),
    [
        (LLAMA, "llama"),
        (QWEN3, "qwen3"),
        (GPT2, "gpt2"),
        (dataclasses.replace(LLAMA, n_kv_heads=1, rope_scaling=RopeScaling(), mlp_bias=True), "llama"),
        (dataclasses.replace(QWEN3, head_dim=10, dropout=0.1), "qwen3"),
        (dataclasses.replace(GPT2, tie_embeddings=False, activation="relu2", rope_theta=3.0), "gpt2"),
    ],
)
def test_the_family_follows_from_the_config(config, model_type):
    state, hf_config = convert(config)
    assert hf_config["model_type"] == model_type
    assert ("lm_head.weight" in state) != config.tie_embeddings
    assert FAMILIES[model_type].read_config(hf_config).resolved().to_dict() | {"dropout": 0.0} == {
        **config.resolved().to_dict(),
        "dropout": 0.0,
    }


@pytest.mark.parametrize(
    ("changes", "model_type", "message"),
    [
        ({"logit_soft_cap": 30.0}, None, "llama cannot express logit_soft_cap=30.0"),
        ({"prefix_lm": True}, None, "llama cannot express prefix_lm=True .it has False"),
        ({"residual": "parallel"}, None, "residual=parallel .it has pre"),
        ({"activation": "gelu"}, "llama", "activation=gelu .it has swiglu"),
        ({"qk_norm": True}, "llama", "qk_norm=True"),
        ({}, "qwen3", "qk_norm=False"),
        ({}, "gpt2", "activation=swiglu"),
        ({"n_heads": 3, "head_dim": 4}, "llama", "n_heads=3 .it must divide d_model"),
        (
            {"n_heads": 3, "head_dim": 4, "logit_soft_cap": 9.0},
            None,
            "mistral cannot.* gpt2 cannot.* qwen3 cannot",
        ),
        ({}, "gtp2", "did you mean 'gpt2'"),
    ],
)
def test_what_a_family_cannot_express_is_named(changes, model_type, message):
    with pytest.raises(ConfigError, match=message):
        convert(dataclasses.replace(LLAMA, **changes), model_type=model_type)


def test_gpt2_refuses_grouped_heads_and_odd_widths():
    for changes, message in [({"n_kv_heads": 1}, "n_kv_heads=1"), ({"head_dim": 4}, "head_dim=4")]:
        with pytest.raises(ConfigError, match=message):
            convert(dataclasses.replace(GPT2, **changes), model_type="gpt2")


def test_dropouts_that_differ_are_refused():
    _, hf_config = convert(GPT2)
    with pytest.raises(ConfigError, match=r"resid_pdrop=0.0, embd_pdrop=0.5.* must agree"):
        FAMILIES["gpt2"].read_config(hf_config | {"embd_pdrop": 0.5})


def test_a_state_of_another_shape_is_refused():
    model = Transformer(LLAMA)
    with pytest.raises(CheckpointError, match="model's state does not fit"):
        to_huggingface(model, dataclasses.replace(LLAMA, d_ff=32))


def test_the_written_config_says_the_dtype_and_the_end_of_text():
    model = Transformer(LLAMA).bfloat16()
    state, hf_config = to_huggingface(model, LLAMA, end_of_text=5)
    assert hf_config["torch_dtype"] == "bfloat16"
    assert (hf_config["bos_token_id"], hf_config["eos_token_id"]) == (5, 5)
    assert all(tensor.dtype == torch.bfloat16 for tensor in state.values())
