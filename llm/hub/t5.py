"""T5 as Hugging Face writes it: the first version (ReLU, tied) and 1.1 (gated, untied)."""

import dataclasses

import torch

from llm.hub.rules import UNGATED, Family, Layers, Rule, State, Values
from llm.model import ModelConfig
from llm.model.config import GATED


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    names = {"q": "query", "k": "key", "v": "value", "o": "output"}
    return tuple(Rule(f"{theirs}.{their}", f"{ours}.{our}") for their, our in names.items())


def is_gated(config: ModelConfig) -> bool:
    """Whether the feed-forward is that of version 1.1."""
    return config.activation in GATED


def _feed_forward(place: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{place}.layer_norm", "residual.norms.feed_forward"),
        Rule(f"{place}.DenseReluDense.wi", "feed_forward.up", when=lambda config: not is_gated(config)),
        Rule(f"{place}.DenseReluDense.wi_0", "feed_forward.gate", when=is_gated),
        Rule(f"{place}.DenseReluDense.wi_1", "feed_forward.up", when=is_gated),
        Rule(f"{place}.DenseReluDense.wo", "feed_forward.down"),
    )


SELF_RULES = (
    *_attention("layer.0.SelfAttention", "attention"),
    Rule("layer.0.layer_norm", "residual.norms.attention"),
)
CROSS_RULES = (
    *_attention("layer.1.EncDecAttention", "cross_attention"),
    Rule("layer.1.layer_norm", "residual.norms.cross_attention"),
)


def write_head(config: ModelConfig) -> Values:
    """Return their keys of the head; one tells whether it is tied, and before transformers 5 also whether it scales."""
    return {
        "tie_word_embeddings": config.tie_embeddings,
        "scale_decoder_outputs": config.scale_logits,
        "is_encoder_decoder": True,
    }


def read_head(theirs: Values) -> Values:
    """Return our keys of the head."""
    tied = theirs["tie_word_embeddings"]
    return {"tie_embeddings": tied, "scale_logits": theirs.get("scale_decoder_outputs", tied)}


def read_untied(config: ModelConfig, state: State) -> ModelConfig:
    """Return `config` with the head that the checkpoint has: transformers 5 calls every head tied."""
    head, tokens = state.get("lm_head.weight"), state.get("shared.weight")
    tied = head is None or (tokens is not None and torch.equal(head, tokens))
    return config if tied else dataclasses.replace(config, tie_embeddings=False)


T5 = Family(
    model_type="t5",
    architecture="T5ForConditionalGeneration",
    keys={
        "d_model": ("d_model",),
        "n_layers": ("num_decoder_layers",),
        "n_encoder_layers": ("num_layers",),
        "n_heads": ("num_heads",),
        "head_dim": ("d_kv",),
        "d_ff": ("d_ff",),
        "context_length": ("n_positions",),
        "vocab_size": ("vocab_size",),
        "dropout": ("dropout_rate",),
        "norm_eps": ("layer_norm_epsilon",),
        "relative_buckets": ("relative_attention_num_buckets",),
        "relative_distance": ("relative_attention_max_distance",),
    },
    constants={
        "architecture": "encoder_decoder",
        "norm": "rms",
        "residual": "pre",
        "position": "relative",
        "attention_scale": 1.0,
    },
    required={},
    defaults={
        "n_positions": 512,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
    },
    activation_key="feed_forward_proj",
    activations=UNGATED | {"gated-gelu": "geglu_tanh", "gated-silu": "swiglu"},
    base="",
    tokens="shared.weight",
    rules=(
        Rule("shared", "embedding.tokens"),
        Rule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "encoder.relative_position"),
        Rule("decoder.block.0.layer.0.SelfAttention.relative_attention_bias", "stack.relative_position"),
        Rule("encoder.final_layer_norm", "encoder.norm"),
        Rule("decoder.final_layer_norm", "stack.norm"),
        Rule("lm_head", "unembedding"),
    ),
    layers=(
        Layers("encoder.block.{}", "encoder.blocks.{}", (*SELF_RULES, *_feed_forward("layer.1"))),
        Layers("decoder.block.{}", "stack.blocks.{}", (*SELF_RULES, *CROSS_RULES, *_feed_forward("layer.2"))),
    ),
    ignored=r"(encoder|decoder)\.embed_tokens\.weight|decoder\..*EncDecAttention\.relative_attention_bias\.weight",
    write_more=write_head,
    read_more=read_head,
    read_state=read_untied,
)
