"""Every bad value of the model's config is named, with its choices, before anything is built."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.errors import ConfigError
from llm.model import ModelConfig, RopeScaling, Transformer


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_heads": 7}, r"model\.n_heads=7: must divide d_model=256 .the nearest that does is 8"),
        ({"n_kv_heads": 3}, r"n_kv_heads=3: must divide n_heads=4 .the nearest that does is 2"),
        ({"n_kv_heads": 8}, "n_kv_heads=8: must divide n_heads=4"),
        ({"head_dim": 63}, "head_dim=63: .*even width"),
        ({"d_model": 28}, "head_dim=None: .*even width, not 7"),
        ({"d_model": 7, "n_heads": 1, "position": "sinusoidal"}, "d_model=7: must be even"),
        ({"norm": "rsm"}, "norm='rsm': must be one of layer, rms; did you mean 'rms'"),
        ({"activation": "swish"}, "activation='swish': .*did you mean 'swiglu'"),
        ({"position": "rope"}, "must be one of learned, sinusoidal, rotary, relative, none"),
        ({"residual": "xyz"}, "must be one of pre, post, parallel$"),
        ({"d_modle": 3}, "no key 'd_modle'; did you mean 'd_model'"),
        ({"d_model": "256"}, "d_model='256': must be int, not str"),
        ({"d_model": True}, "d_model=True: must be int, not bool"),
        ({"d_model": None}, "d_model=None: must be int"),
        ({"d_model": 2.5}, "d_model=2.5: must be int, not float"),
        ({"vocab_size": "many"}, "must be int or null"),
        ({"qk_norm": 1}, "qk_norm=1: must be bool"),
        ({"n_layers": 0}, "n_layers=0: must be a positive integer"),
        ({"d_ff": -1}, "d_ff=-1: must be a positive integer"),
        ({"n_layers": 10**9}, "n_layers=1000000000: must be at most 16,777,216"),
        ({"context_length": 0}, "context_length=0"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"norm_eps": 0}, "norm_eps=0.0: must be positive"),
        ({"norm_eps": float("inf")}, "norm_eps=inf"),
        ({"rope_theta": -1.0}, "rope_theta=-1.0"),
        ({"logit_soft_cap": 0.0}, "logit_soft_cap=0.0: must be positive, or null"),
        ({"rope_scaling": {"factr": 2}}, "model.rope_scaling has no key 'factr'; did you mean 'factor'"),
        ({"rope_scaling": {"factor": 0.5}}, r"model\.rope_scaling\.factor=0.5: must be at least 1"),
        ({"rope_scaling": {"high_freq_factor": 1.0}}, "above low_freq_factor=1.0"),
        ({"rope_scaling": 8.0}, "rope_scaling=8.0: must be RopeScaling or null"),
        ({"rope_scaling": {}, "position": "learned"}, "is for position=rotary"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


def test_whole_numbers_are_floats_where_floats_are_wanted():
    config = ModelConfig.from_dict({"rope_theta": 10000, "dropout": 0})
    assert type(config.rope_theta) is float
    assert type(config.dropout) is float


def test_plain_values_come_back():
    config = ModelConfig(rope_scaling=RopeScaling(factor=4.0), n_kv_heads=2)
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["rope_scaling"]["factor"] == 4.0


def test_derived_sizes():
    config = ModelConfig(d_model=256, n_heads=4)
    assert (config.kv_heads, config.head_size, config.ff_size) == (4, 64, 704)
    assert ModelConfig(activation="gelu").ff_size == 1024
    resolved = config.resolved()
    assert (resolved.n_kv_heads, resolved.head_dim, resolved.d_ff) == (4, 64, 704)


def test_the_vocabulary_is_derived_once():
    config = ModelConfig()
    with pytest.raises(ConfigError, match="derived from the tokenizer"):
        Transformer(config)
    derived = config.with_vocab_size(300)
    assert derived.vocab_size == 300
    assert derived.with_vocab_size(300) == derived
    with pytest.raises(ConfigError, match="vocab_size=300, but the tokenizer has 400"):
        derived.with_vocab_size(400)


def test_configs_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().d_model = 3
    assert len({ModelConfig(), ModelConfig(), ModelConfig(n_layers=2)}) == 2


KEYS = [field.name for field in dataclasses.fields(ModelConfig)]
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=5), st.lists(st.none())
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "other"]), JUNK, max_size=3))
def test_anything_is_a_config_or_a_config_error(values):
    try:
        config = ModelConfig.from_dict(values)
    except ConfigError:
        return
    assert ModelConfig.from_dict(config.to_dict()) == config
