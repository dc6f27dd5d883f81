"""Our model against Hugging Face's classes on the same small random weights, both ways."""

import json

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertPreTrainedModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    MistralConfig,
    MistralForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.modernbert import modeling_modernbert
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from llm.generation import generate
from llm.hub import from_huggingface, from_huggingface_state, to_huggingface
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.mask import PADDING

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
MARIAN_SIZES = {
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 64,
    "vocab_size": 101,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}
T5_SIZES = {
    "d_model": 48,
    "d_kv": 16,
    "d_ff": 80,
    # As many on both sides: with fewer in the encoder, the cache of transformers 5.24 fails.
    "num_layers": 3,
    "num_heads": 4,
    "n_positions": 64,
    "vocab_size": 101,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
SPECIAL = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
NORMS = (LlamaRMSNorm, Qwen3RMSNorm, MistralRMSNorm, Qwen2RMSNorm, T5LayerNorm)
# name -> (their class, their config, float64 tolerance): rotary angles and RMS norms they compute in float32.
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
    "mistral_windowed": (
        MistralForCausalLM,
        MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=9),
        1e-6,
    ),
    "mistral": (
        MistralForCausalLM,
        MistralConfig(**SIZES, num_key_value_heads=4, head_dim=16, sliding_window=None),
        1e-6,
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True), 1e-6),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**SIZES, rotary_pct=0.5), 1e-6),
    "gpt_neox_in_turn": (
        GPTNeoXForCausalLM,
        GPTNeoXConfig(**SIZES, rotary_pct=1.0, use_parallel_residual=False, tie_word_embeddings=True),
        1e-6,
    ),
    "bert": (BertForMaskedLM, BertConfig(**SIZES), 1e-12),
    "bert_labels": (BertForSequenceClassification, BertConfig(**SIZES, num_labels=3), 1e-12),
    "bert_words": (BertForTokenClassification, BertConfig(**SIZES, num_labels=5), 1e-12),
    "bert_answers": (BertForQuestionAnswering, BertConfig(**SIZES), 1e-12),
    "modernbert": (
        ModernBertForMaskedLM,
        ModernBertConfig(**SIZES, local_attention=10, global_attn_every_n_layers=2, **SPECIAL),
        1e-6,
    ),
    "t5": (T5ForConditionalGeneration, T5Config(**T5_SIZES), 1e-6),
    "t5_1.1": (
        T5ForConditionalGeneration,
        T5Config(**T5_SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        1e-6,
    ),
    "marian": (
        MarianMTModel,
        MarianConfig(**MARIAN_SIZES, activation_function="relu", scale_embedding=True),
        1e-12,
    ),
}
DECODERS = [
    name for name, (kind, *_) in CASES.items() if "CausalLM" in kind.__name__ or kind is GPT2LMHeadModel
]

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
            if not parameter.requires_grad:  # Marian's table of sines
                continue
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            if name.endswith("Attention.q.weight"):
                noise /= 4  # T5 does not scale its scores
            parameter.copy_(noise + 1 if "norm" in name.lower() or ".ln_" in name else noise)


# Rows of different lengths, for the families that take padding, and tokens from 1 on: theirs leaves 0 out of the
# embedding's gradient.
LENGTHS = torch.tensor([64, 40, 17])
PRESENT = torch.arange(64) < LENGTHS[:, None]
SEGMENTS = (torch.arange(64) >= LENGTHS[:, None] // 2).long()
DOCUMENTS = torch.where(PRESENT, 0, PADDING)


def our_logits(model, tokens_bt):
    """Logits of every token that is there, (n, v)."""
    match model.config:
        case ModelConfig(architecture="decoder"):
            return model(tokens_bt).flatten(0, 1)
        case ModelConfig(architecture="encoder", n_segments=0):
            return model(tokens_bt, documents_bt=DOCUMENTS)[PRESENT]
        case ModelConfig(architecture="encoder", labelled="text", labels=labels):
            scores = model(tokens_bt, documents_bt=DOCUMENTS, segments_bt=SEGMENTS)
            return scores[:, 0] if labels else scores[PRESENT]
        case ModelConfig(architecture="encoder"):
            return model(tokens_bt, documents_bt=DOCUMENTS, segments_bt=SEGMENTS)[PRESENT]
    target_bt = tokens_bt.flip(1)[:, :30]
    return model(target_bt, source_bs=tokens_bt, source_documents_bs=DOCUMENTS).flatten(0, 1)


def their_logits(model, tokens_bt):
    """The same of theirs."""
    if isinstance(model, BertPreTrainedModel):
        out = model(tokens_bt, attention_mask=PRESENT.long(), token_type_ids=SEGMENTS)
        if isinstance(model, BertForSequenceClassification):
            return out.logits
        if isinstance(model, BertForQuestionAnswering):
            return torch.stack((out.start_logits, out.end_logits), dim=-1)[PRESENT]
        return out.logits[PRESENT]
    if isinstance(model, ModernBertForMaskedLM):
        return model(tokens_bt, attention_mask=PRESENT.long()).logits[PRESENT]
    if isinstance(model, T5ForConditionalGeneration | MarianMTModel):
        target_bt = tokens_bt.flip(1)[:, :30]
        inputs = {"attention_mask": PRESENT.long(), "decoder_input_ids": target_bt}
        return model(tokens_bt, **inputs).logits.flatten(0, 1)
    return model(tokens_bt).logits.flatten(0, 1)


def loss_of(logits_nv):
    """The cross-entropy of some labels, as good as any."""
    return F.cross_entropy(logits_nv, torch.arange(len(logits_nv)) % logits_nv.shape[1])


@pytest.fixture(scope="module")
def tokens_bt():
    return torch.randint(1, 101, (3, 64), generator=torch.Generator().manual_seed(1))


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
    wanted = their_logits(theirs, tokens_bt)
    logits = our_logits(ours, tokens_bt)
    assert difference(logits, wanted) <= 2e-6
    our_loss, their_loss = loss_of(logits), loss_of(wanted)
    assert difference(our_loss, their_loss) <= 2e-6
    gradients = gradients_of(ours, our_loss)
    theirs.zero_grad()
    their_loss.backward()
    as_theirs, _ = to_huggingface(gradients, ours.config, model_type=theirs.config.model_type)
    largest = max(parameter.grad.abs().max() for parameter in theirs.parameters() if parameter.requires_grad)
    learned = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    for name, parameter in learned.items():
        # The keys' bias shifts all scores of a query alike, so that its gradient is rounding error around zero.
        scale = largest if name.endswith(("k_proj.bias", "key.bias")) else parameter.grad.abs().max()
        # GPT-NeoX has another name in its files than in its class.
        ours_of_it = as_theirs["embed_out.weight" if name not in as_theirs else name]
        assert (ours_of_it - parameter.grad).abs().max() <= 1e-5 * scale, name


def gradients_of(model, loss):
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def difference_in_float64(ours, theirs, tokens_bt):
    with torch.no_grad():
        result = difference(our_logits(ours.double(), tokens_bt), their_logits(theirs.double(), tokens_bt))
    ours.float(), theirs.float()
    return result


def test_float64_agrees(converted, tokens_bt):
    ours, theirs, tolerance = converted
    assert difference_in_float64(ours, theirs, tokens_bt) <= tolerance


def test_float64_agrees_to_rounding_once_their_norms_and_turns_are_float64(converted, tokens_bt, monkeypatch):
    def exact(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    def turned(q, k, cos, sin, unsqueeze_dim=1):
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return (x * cos + modeling_modernbert.rotate_half(x) * sin for x in (q, k))

    for norm in NORMS:
        monkeypatch.setattr(norm, "forward", exact)
    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", turned)
    ours, theirs, _ = converted
    assert difference_in_float64(ours, theirs, tokens_bt) <= 1e-12


def test_greedy_text_is_identical(converted, tokens_bt):
    ours, theirs, _ = converted
    if ours.config.architecture == "encoder":
        pytest.skip("an encoder writes no text")
    how = {"do_sample": False, "max_new_tokens": 50, "eos_token_id": None, "pad_token_id": 0}
    if ours.config.architecture == "decoder":
        prompt_bt = tokens_bt[:, :9]
        wanted = theirs.generate(prompt_bt, **how)
        assert wanted.shape[1] == 59
        assert torch.equal(greedy(ours, prompt_bt, 50), wanted)
        assert torch.equal(uncached(ours, prompt_bt, 50), wanted)
    else:
        with torch.no_grad():
            memory = ours.encode_source(tokens_bt, DOCUMENTS)
        wanted = theirs.generate(tokens_bt, attention_mask=PRESENT.long(), bad_words_ids=None, **how)
        assert wanted.shape[1] == 51
        start_b1 = torch.zeros(3, 1, dtype=torch.long)
        assert torch.equal(greedy(ours, start_b1, 50, memory), wanted)
        assert torch.equal(uncached(ours, start_b1, 50, memory), wanted)


def greedy(model, prompt_bt, count, memory=None):
    new_bt = torch.stack(list(generate(model, prompt_bt, max_new_tokens=count, memory=memory)), dim=1)
    return torch.cat((prompt_bt, new_bt), dim=1)


@torch.no_grad()
def uncached(model, tokens_bt, count, memory=None):
    for _ in range(count):
        tokens_bt = torch.cat((tokens_bt, model(tokens_bt, memory=memory)[:, -1:].argmax(-1)), dim=1)
    return tokens_bt


def test_weights_come_back_bit_for_bit(converted):
    ours, theirs, _ = converted
    state, hf_config = to_huggingface(ours, ours.config, model_type=theirs.config.model_type)
    config, back = from_huggingface_state(state, hf_config)
    assert config.resolved() == ours.config.resolved()
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())


BERT_LIKE = GPT.to_dict() | {
    "architecture": "encoder",
    "residual": "post",
    "activation": "gelu",
    "embedding_norm": True,
    "n_segments": 2,
    "head": "transformed",
    "head_bias": True,
}
MODERN = NANO.to_dict() | {
    "architecture": "encoder",
    "n_kv_heads": 4,
    "head_dim": 12,
    "qk_norm": False,
    "norm": "layer",
    "norm_bias": False,
    "activation": "geglu",
    "embedding_norm": True,
    "attention_window": 8,
    "global_attention_every": 3,
    "head": "transformed",
    "head_bias": True,
}
T5_LIKE = NANO.to_dict() | {
    "architecture": "encoder_decoder",
    "n_kv_heads": 4,
    "qk_norm": False,
    "position": "relative",
    "attention_scale": 1.0,
    "activation": "geglu_tanh",
}
VASWANI = GPT.to_dict() | {
    "architecture": "encoder_decoder",
    "n_encoder_layers": 2,
    "residual": "post",
    "position": "sinusoidal",
    "activation": "relu",
    "scale_embeddings": True,
    "norm_eps": 1e-5,
}
LLAMA_LIKE = NANO.to_dict() | {"qk_norm": False, "head_dim": 12, "tie_embeddings": False}
WRITTEN = {
    "nano": (NANO, AutoModelForCausalLM, Qwen3ForCausalLM),
    "llama": (ModelConfig(**LLAMA_LIKE), AutoModelForCausalLM, LlamaForCausalLM),
    "mistral": (
        ModelConfig(**LLAMA_LIKE | {"attention_window": 9}),
        AutoModelForCausalLM,
        MistralForCausalLM,
    ),
    "qwen2": (
        ModelConfig(**LLAMA_LIKE | {"attention_bias": True, "attention_output_bias": False}),
        AutoModelForCausalLM,
        Qwen2ForCausalLM,
    ),
    "gpt_neox": (
        ModelConfig(
            **GPT.to_dict()
            | {"residual": "parallel", "position": "rotary", "rotary_share": 0.5, "tie_embeddings": False}
        ),
        AutoModelForCausalLM,
        GPTNeoXForCausalLM,
    ),
    "gpt": (GPT, AutoModelForCausalLM, GPT2LMHeadModel),
    "bert": (ModelConfig(**BERT_LIKE), AutoModelForMaskedLM, BertForMaskedLM),
    "modern": (ModelConfig(**MODERN), AutoModelForMaskedLM, ModernBertForMaskedLM),
    "t5_tied": (
        ModelConfig(**T5_LIKE | {"scale_logits": True}),
        AutoModelForSeq2SeqLM,
        T5ForConditionalGeneration,
    ),
    "t5_unscaled": (ModelConfig(**T5_LIKE), AutoModelForSeq2SeqLM, T5ForConditionalGeneration),
    "t5_untied": (
        ModelConfig(**T5_LIKE | {"tie_embeddings": False}),
        AutoModelForSeq2SeqLM,
        T5ForConditionalGeneration,
    ),
    "vaswani": (ModelConfig(**VASWANI), AutoModelForSeq2SeqLM, MarianMTModel),
}


@pytest.mark.parametrize(("config", "auto", "kind"), WRITTEN.values(), ids=WRITTEN)
def test_their_class_loads_what_we_write(config, auto, kind, tokens_bt, tmp_path):
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
    theirs, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is kind
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.eos_token_id == 2
    with torch.no_grad():
        assert difference(our_logits(model, tokens_bt), their_logits(theirs.eval(), tokens_bt)) <= 2e-6


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
