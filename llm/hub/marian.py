"""Marian as Hugging Face writes it: the Transformer of 2017, as the OPUS translation models have it."""

from llm.hub.rules import UNGATED, Family, Layers, Rule, Values
from llm.model import ModelConfig


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return (
        *(Rule(f"{theirs}.{their}", f"{ours}.{our}") for their, our in names.items()),
        Rule(f"{theirs}_layer_norm", f"residual.norms.{ours}"),
    )


SELF_RULES = (
    *_attention("self_attn", "attention"),
    Rule("fc1", "feed_forward.up"),
    Rule("fc2", "feed_forward.down"),
    Rule("final_layer_norm", "residual.norms.feed_forward"),
)


def write_more(config: ModelConfig) -> Values:
    """Return that it is an encoder-decoder, which older versions of transformers want to read."""
    return {"is_encoder_decoder": True, "decoder_vocab_size": config.vocabulary}


MARIAN = Family(
    model_type="marian",
    architecture="MarianMTModel",
    keys={
        "d_model": ("d_model",),
        "n_layers": ("decoder_layers",),
        "n_encoder_layers": ("encoder_layers",),
        "n_heads": ("encoder_attention_heads", "decoder_attention_heads"),
        "d_ff": ("encoder_ffn_dim", "decoder_ffn_dim"),
        "context_length": ("max_position_embeddings",),
        "vocab_size": ("vocab_size",),
        "dropout": ("dropout",),
        "scale_embeddings": ("scale_embedding",),
    },
    constants={
        "architecture": "encoder_decoder",
        "norm": "layer",
        "norm_eps": 1e-5,
        "residual": "post",
        "position": "sinusoidal",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_embeddings": True,
    },
    required={"share_encoder_decoder_embeddings": True, "tie_word_embeddings": True},
    defaults={
        "max_position_embeddings": 1024,
        "dropout": 0.1,
        "scale_embedding": False,
        "activation_function": "gelu",
    },
    activation_key="activation_function",
    activations=UNGATED,
    base="model.",
    tokens="shared.weight",
    rules=(Rule("model.shared", "embedding.tokens"),),
    layers=(
        Layers("model.encoder.layers.{}", "encoder.blocks.{}", SELF_RULES),
        Layers(
            "model.decoder.layers.{}",
            "stack.blocks.{}",
            (*SELF_RULES, *_attention("encoder_attn", "cross_attention")),
        ),
    ),
    ignored=r"model\.(encoder|decoder)\.embed_(tokens|positions)\.weight",
    zeros=r"final_logits_bias",
    write_more=write_more,
)
