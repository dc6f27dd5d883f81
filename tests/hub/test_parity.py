"""Our model against Hugging Face's classes on the same small random weights, both ways."""

import json

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from llm.hub import from_huggingface, from_huggingface_state, to_huggingface
from llm.model import KVCache, ModelConfig, Transformer, init_weights

GPT2_SIZES = {
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": 101,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "vocab_size": 101,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
NORMS = (LlamaRMSNorm, Qwen3RMSNorm)
# name -> (their class, their config, float64 tolerance): Llama and Qwen3 compute angles and norms in float32.
CASES = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2_SIZES), 1e-12),
    "gpt2_untied_relu": (
        GPT2LMHeadModel,
        GPT2Config(**GPT2_SIZES, n_inner=100, activation_function="relu", tie_word_embeddings=False),
        1e-12,
    ),
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES), 1e-6),
    "llama_grouped_biased": (
        LlamaForCausalLM,
        LlamaConfig(
            **SIZES, num_key_value_heads=2, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
        ),
        1e-6,
    ),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SIZES, num_key_value_heads=1, rope_parameters=LLAMA3), 1e-6),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16), 1e-6),
    "qwen3_tied": (
        Qwen3ForCausalLM,
        Qwen3Config(
            **SIZES, num_key_value_heads=2, head_dim=24, tie_word_embeddings=True, attention_bias=True
        ),
        1e-6,
    ),
}

NANO = ModelConfig(
    d_model=48,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    n_layers=3,
    d_ff=80,
    context_length=64,
    vocab_size=101,
    qk_norm=True,
)
GPT = ModelConfig(
    d_model=48,
    n_heads=4,
    n_layers=3,
    context_length=64,
    vocab_size=101,
    norm="layer",
    position="learned",
    activation="gelu_tanh",
    attention_bias=True,
    mlp_bias=True,
)


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def scramble(model):
    """Weights large enough for every term, biases and norms included, to matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.copy_(noise + 1 if "norm" in name or ".ln_" in name else noise)


def loss_of(logits_btv, tokens_bt):
    return F.cross_entropy(logits_btv[:, :-1].flatten(0, 1), tokens_bt[:, 1:].flatten())


@pytest.fixture(scope="module")
def tokens_bt():
    return torch.randint(0, 101, (3, 64), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=CASES)
def converted(request, tmp_path_factory):
    """Their model, saved by them and read by us, and the float64 tolerance."""
    kind, hf_config, tolerance = CASES[request.param]
    theirs = kind(hf_config).eval()
    scramble(theirs)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    config, state = from_huggingface(folder)
    ours = Transformer(config).eval()
    ours.load_state_dict(state)
    return ours, theirs, tolerance


def test_logits_loss_and_gradients_agree(converted, tokens_bt):
    ours, theirs, _ = converted
    their_logits = theirs(tokens_bt).logits
    our_logits = ours(tokens_bt)
    assert difference(our_logits, their_logits) <= 2e-6
    our_loss, their_loss = loss_of(our_logits, tokens_bt), loss_of(their_logits, tokens_bt)
    assert difference(our_loss, their_loss) <= 2e-6
    gradients = gradients_of(ours, our_loss)
    theirs.zero_grad()
    their_loss.backward()
    as_theirs, _ = to_huggingface(gradients, ours.config, model_type=theirs.config.model_type)
    largest = max(parameter.grad.abs().max() for parameter in theirs.parameters())
    for name, parameter in theirs.named_parameters():
        # The keys' bias shifts all scores of a query alike, so that its gradient is rounding error around zero.
        scale = largest if name.endswith("k_proj.bias") else parameter.grad.abs().max()
        assert (as_theirs[name] - parameter.grad).abs().max() <= 1e-5 * scale, name


def gradients_of(model, loss):
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def difference_in_float64(ours, theirs, tokens_bt):
    with torch.no_grad():
        result = difference(ours.double()(tokens_bt), theirs.double()(tokens_bt).logits)
    ours.float(), theirs.float()
    return result


def test_float64_agrees(converted, tokens_bt):
    ours, theirs, tolerance = converted
    assert difference_in_float64(ours, theirs, tokens_bt) <= tolerance


def test_float64_agrees_to_rounding_once_their_norm_is_float64(converted, tokens_bt, monkeypatch):
    def exact(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for norm in NORMS:
        monkeypatch.setattr(norm, "forward", exact)
    ours, theirs, _ = converted
    assert difference_in_float64(ours, theirs, tokens_bt) <= 1e-12


def test_greedy_text_is_identical(converted, tokens_bt):
    ours, theirs, _ = converted
    prompt_bt = tokens_bt[:, :9]
    wanted = theirs.generate(prompt_bt, do_sample=False, max_new_tokens=50, eos_token_id=None, pad_token_id=0)
    assert wanted.shape[1] == 59
    assert torch.equal(greedy(ours, prompt_bt, 50), wanted)


@torch.no_grad()
def greedy(model, prompt_bt, count):
    cache = KVCache(model.config, len(prompt_bt))
    written, step_bt = prompt_bt, prompt_bt
    for _ in range(count):
        step_bt = model(step_bt, cache=cache)[:, -1:].argmax(-1)
        written = torch.cat((written, step_bt), dim=1)
    return written


def test_weights_come_back_bit_for_bit(converted):
    ours, theirs, _ = converted
    state, hf_config = to_huggingface(ours, ours.config, model_type=theirs.config.model_type)
    config, back = from_huggingface_state(state, hf_config)
    assert config.resolved() == ours.config.resolved()
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    ("config", "kind"),
    [(NANO, Qwen3ForCausalLM), (GPT, GPT2LMHeadModel)],
    ids=["nano", "gpt"],
)
def test_their_class_loads_what_we_write(config, kind, tokens_bt, tmp_path):
    from safetensors.torch import save_file

    model = Transformer(config).eval()
    init_weights(model, seed=3)
    state, hf_config = to_huggingface(model, config, end_of_text=2)
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    (tmp_path / "config.json").write_text(json.dumps(hf_config))
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is kind
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.eos_token_id == 2
    with torch.no_grad():
        assert difference(model(tokens_bt), theirs.eval()(tokens_bt).logits) <= 2e-6


def test_llama_3_scaling_reaches_their_class_as_we_write_it(tokens_bt):
    ours = ModelConfig.from_dict(
        {
            "d_model": 48,
            "n_layers": 2,
            "n_heads": 2,
            "context_length": 64,
            "vocab_size": 101,
            "d_ff": 80,
            "rope_scaling": {"factor": 4.0, "original_context_length": 16},
            "tie_embeddings": False,
        }
    )
    model = Transformer(ours).eval()
    scramble(model)
    state, hf_config = to_huggingface(model, ours)
    assert hf_config["model_type"] == "llama"
    theirs = LlamaForCausalLM(LlamaConfig.from_dict(hf_config)).eval()
    theirs.load_state_dict(state)
    with torch.no_grad():
        assert difference(model(tokens_bt), theirs(tokens_bt).logits) <= 2e-6
