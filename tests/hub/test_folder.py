"""Reading Hugging Face folders: shards, old layouts, and every way in which one can be wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from llm.errors import CheckpointError, ConfigError
from llm.hub import from_huggingface, from_huggingface_state, to_huggingface
from llm.model import ModelConfig, Transformer, init_weights

CONFIG = ModelConfig(
    d_model=16, n_layers=2, n_heads=2, d_ff=24, context_length=8, vocab_size=11, qk_norm=True
)


@pytest.fixture
def written(tmp_path):
    """A folder in Qwen3's format, and what it should give."""
    model = Transformer(CONFIG)
    init_weights(model, seed=0)
    state, hf_config = to_huggingface(model, CONFIG)
    (tmp_path / "config.json").write_text(json.dumps(hf_config))
    save_file(state, tmp_path / "model.safetensors")
    return tmp_path, state


def edit_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def test_shards_are_joined(tmp_path):
    theirs = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=8,
            vocab_size=11,
        )
    )
    theirs.save_pretrained(tmp_path, max_shard_size=2000)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    config, state = from_huggingface(tmp_path)
    Transformer(config).load_state_dict(state)
    assert torch.equal(state["embedding.tokens.weight"], theirs.model.embed_tokens.weight)


def test_the_first_gpt2_layout_is_read():
    """No prefix, the causal mask among the tensors, the tied head written out."""
    theirs = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=8, vocab_size=11))
    old = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 8, 8).tril()
    old["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    old["lm_head.weight"] = old["wte.weight"].clone()
    config, state = from_huggingface_state(old, theirs.config.to_dict())
    ours = Transformer(config)
    ours.load_state_dict(state)
    tokens_bt = torch.arange(8)[None]
    with torch.no_grad():
        logits_btv, wanted_btv = ours.eval()(tokens_bt), theirs.eval()(tokens_bt).logits
    assert (logits_btv - wanted_btv).abs().max() <= 2e-6 * wanted_btv.abs().max()


def test_the_first_names_of_norms_are_read(tmp_path):
    """As bert-base-uncased still has them; transformers takes both."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    theirs = BertForMaskedLM(BertConfig(**sizes, max_position_embeddings=8, vocab_size=11)).eval()
    for parameter in theirs.parameters():
        parameter.data.normal_()
    theirs.save_pretrained(tmp_path)
    wanted = from_huggingface(tmp_path)[1]
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    assert "cls.predictions.transform.LayerNorm.gamma" in old
    state = from_huggingface(tmp_path)[1]
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
    again = BertForMaskedLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_tied_head_that_differs_is_refused():
    theirs = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=8, vocab_size=11))
    state = dict(theirs.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(CheckpointError, match="tied"):
        from_huggingface_state(state, theirs.config.to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda state: state.update({"score.weight": torch.ones(2)}), "score.weight is not part"),
        (lambda state: state.update({"model.norm.weight": torch.ones(15)}), r"\(15,\), not \(16,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(written, change, message):
    folder, state = written
    change(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        from_huggingface(folder)


def test_a_truncated_file_is_an_error(written):
    folder, _ = written
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        from_huggingface(folder)


def test_a_pickle_is_never_opened(written):
    folder, _ = written
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        from_huggingface(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "absent.safetensors", ""])
def test_an_index_cannot_point_elsewhere(written, name):
    folder, _ = written
    inner = folder / "inner"
    inner.mkdir()
    (folder / "config.json").rename(inner / "config.json")
    index = {"weight_map": {"model.norm.weight": name}}
    (inner / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not a file of that folder"):
        from_huggingface(inner)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_damaged_config_is_an_error(written, text):
    folder, _ = written
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        from_huggingface(folder)


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="is it a Hugging Face model folder"):
        from_huggingface(tmp_path / "absent")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen4"}, "did you mean 'qwen3'"),
        ({"model_type": None}, "only qwen3, llama, "),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"rope_scaling": "yarn"}, "must be an object"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "lack low_freq_factor"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"hidden_size": "wide"}, "d_model='wide'"),
        ({"num_key_value_heads": 3}, "n_kv_heads=3"),
    ],
)
def test_what_we_have_no_part_for_is_named(written, changes, message):
    folder, _ = written
    edit_config(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        from_huggingface(folder)


def test_a_config_without_a_needed_key_is_refused(written):
    folder, _ = written
    values = json.loads((folder / "config.json").read_text())
    del values["hidden_size"]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="no 'hidden_size'"):
        from_huggingface(folder)
