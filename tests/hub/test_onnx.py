"""ONNX: the runtime gives the same logits as the model, for any batch and length, and with padding."""

import dataclasses
import json

import pytest
import torch

from llm.errors import ConfigError
from llm.hub import onnx
from llm.hub.bert import gives_states
from llm.hub.export import About
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.mask import PADDING
from llm.tokenizer import ByteSpec

pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install -e '.[export]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'"
)

BYTES = ByteSpec().build()
SIZES = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48, "context_length": 24, "vocab_size": 264}
LLAMA = ModelConfig(**SIZES, n_kv_heads=2, tie_embeddings=False)
LAYERED = {"norm": "layer", "attention_bias": True, "mlp_bias": True}
GPT = ModelConfig(**SIZES, **LAYERED, position="learned", activation="gelu_tanh")
CONFIGS = {
    "bert": ModelConfig(
        **SIZES,
        **LAYERED,
        architecture="encoder",
        residual="post",
        position="learned",
        activation="gelu",
        embedding_norm=True,
        n_segments=2,
        head="transformed",
        head_bias=True,
    ),
    "t5": ModelConfig(
        **SIZES,
        architecture="encoder_decoder",
        position="relative",
        activation="geglu_tanh",
        attention_scale=1.0,
        tie_embeddings=False,
    ),
}
# What these are made of is in the others too, or in a test of the model itself; the exporter takes seconds for each.
SLOW = {
    "gpt": GPT,
    "llama": LLAMA,
    "embedding model": dataclasses.replace(CONFIGS["bert"], head="linear", head_bias=False, pooler=True),
    "bert with labels": dataclasses.replace(
        CONFIGS["bert"], head="linear", head_bias=False, pooler=True, labels=("bad", "good")
    ),
    "qwen3 with windows": dataclasses.replace(
        LLAMA, qk_norm=True, attention_window=5, global_attention_every=2
    ),
    "modern bert": dataclasses.replace(
        LLAMA,
        architecture="encoder",
        norm="layer",
        norm_bias=False,
        activation="geglu",
        embedding_norm=True,
        attention_window=5,
        global_attention_every=2,
        local_rope_theta=500.0,
        head="transformed",
    ),
    "gpt-neox": dataclasses.replace(
        GPT, residual="parallel", position="rotary", rotary_share=0.25, tie_embeddings=False
    ),
    "transformer of 2017": ModelConfig(
        **SIZES,
        **LAYERED,
        architecture="encoder_decoder",
        residual="post",
        position="sinusoidal",
        activation="relu",
        scale_embeddings=True,
    ),
}


def make(config):
    model = Transformer(config)
    init_weights(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


def padded(rows, lengths):
    """1 up to each row's length, 0 after it."""
    return (torch.arange(rows)[None] < torch.tensor(lengths)[:, None]).long()


def expected(model, inputs):
    """The logits by the model itself."""
    tokens_bt, mask_bt = inputs["input_ids"], inputs["attention_mask"]
    documents_bt = torch.where(mask_bt == 0, PADDING, 0)
    with torch.no_grad():
        if "decoder_input_ids" in inputs:
            return model(inputs["decoder_input_ids"], source_bs=tokens_bt, source_documents_bs=documents_bt)
        score = model.hidden_states if gives_states(model.config) else model
        return score(tokens_bt, documents_bt=documents_bt, segments_bt=inputs.get("token_type_ids"))


def check(config, folder):
    model = make(config)
    onnx.write(folder, model, BYTES, About(name="spam", out=folder))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [node.name for node in session.get_inputs()]
    assert names == list(onnx.example(model))
    (output,) = [node.name for node in session.get_outputs()]
    assert output == ("last_hidden_state" if gives_states(config) else "logits")
    generator = torch.Generator().manual_seed(0)
    for lengths in ([1], [24], [7, 3, 5], [1, 20, 20, 2, 9]):
        shape = (len(lengths), max(lengths))
        inputs = {name: torch.randint(0, 264, shape, generator=generator) for name in names}
        inputs["attention_mask"] = padded(max(lengths), lengths)
        if "token_type_ids" in inputs:
            inputs["token_type_ids"] %= 2
        if "decoder_input_ids" in inputs:
            inputs["decoder_input_ids"] = inputs["decoder_input_ids"][:, : -(-max(lengths) // 2)]
        logits = expected(model, inputs)
        (ours,) = session.run([output], {name: value.numpy() for name, value in inputs.items()})
        assert ours.shape == logits.shape
        assert (torch.from_numpy(ours) - logits).abs().max().item() < 1e-5
        assert logits.abs().max() > 0.1
        check_padding(session, inputs, torch.from_numpy(ours))


def check_padding(session, inputs, logits):
    """What stands in the padding changes nothing before it."""
    hidden = inputs["attention_mask"] == 0
    changed = dict(inputs, input_ids=torch.where(hidden, 99, inputs["input_ids"]))
    again = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in changed.items()})[0])
    seen = torch.ones_like(again[..., 0], dtype=torch.bool) if "decoder_input_ids" in inputs else ~hidden
    assert (again - logits)[seen].abs().max().item() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_the_runtime_gives_the_same_logits(name, tmp_path):
    check(CONFIGS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_runtime_gives_the_same_logits_of_relatives(name, tmp_path):
    check(SLOW[name], tmp_path)
    labels = SLOW[name].labels
    assert not labels or json.loads((tmp_path / "labels.json").read_text()) == list(labels)


def test_large_weights_lie_beside_the_model_and_the_tokenizer_too(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(onnx, "LARGEST_FILE", 10_000)
    check(dataclasses.replace(LLAMA, n_layers=1), tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 4 * 264 * 32
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer("spam é").input_ids == BYTES.encode("spam é")


def test_what_is_not_written_is_said(tmp_path):
    for model, out, message in (
        (make(LLAMA).bfloat16(), tmp_path, "dtype=bfloat16: format=onnx is written in float32"),
        (make(LLAMA), tmp_path / "a.onnx", "format=onnx makes a folder"),
        (make(dataclasses.replace(LLAMA, prefix_lm=True)), tmp_path, "has no input for where a prompt ends"),
    ):
        with pytest.raises(ConfigError, match=message):
            onnx.write(tmp_path, model, BYTES, About(name="spam", out=out))
    assert not list(tmp_path.iterdir())
