"""The presets of conf/model: they compose, hold values alone, and have the sizes that their names promise."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from llm.model import ModelConfig, RopeScaling, parameter_count

CONF = Path(__file__).parents[2] / "conf"
# name -> (vocabulary, parameters)
SIZES = {
    "nano": (4096, 2_361_536),
    "gpt_nano": (4096, 5_853_184),
    "gpt_small": (50257, 124_439_808),
    "gpt_medium": (50257, 354_823_168),
    "gpt_large": (50257, 774_030_080),
    "gpt_xl": (50257, 1_557_611_200),
    "gpt3_175b": (50257, 174_604_259_328),
    "llama_nano": (4096, 5_475_584),
    "llama_1b": (128256, 1_235_814_400),
    "llama_8b": (128256, 8_030_261_248),
    "mistral_7b": (32000, 7_241_732_096),
    "qwen2_500m": (151936, 494_032_768),
    "pythia_160m": (50304, 162_322_944),
    "bert_base": (30522, 109_514_298),
    "bert_large": (30522, 335_174_458),
    "modern_bert_base": (50368, 149_655_232),
}


def preset(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose(overrides=[f"+model={name}"]).model)
    return ModelConfig.from_dict(values)


@pytest.mark.parametrize("name", SIZES)
def test_presets_have_their_size(name):
    vocabulary, parameters = SIZES[name]
    config = preset(name)
    assert config.vocab_size is None
    assert parameter_count(config.with_vocab_size(vocabulary)) == parameters


def test_the_default_has_qwen3s_shape():
    config = preset("nano").resolved()
    assert (config.d_model, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim) == (
        192,
        4,
        3,
        1,
        64,
    )
    assert (config.norm, config.position, config.activation, config.qk_norm) == (
        "rms",
        "rotary",
        "swiglu",
        True,
    )


def test_the_llamas_stretch_their_waves():
    assert preset("llama_1b").rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)
    assert preset("llama_8b").rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
    assert preset("llama_nano").rope_scaling is None
