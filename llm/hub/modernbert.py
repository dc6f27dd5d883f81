"""ModernBERT as Hugging Face writes it: rotary positions, gated feed-forward, and layers that look nearby alone."""

from llm.errors import ConfigError
from llm.hub.rules import Family, Layers, Rule, Values
from llm.model import ModelConfig

LAYER_RULES = (
    Rule("attn_norm", "residual.norms.attention"),
    Rule("attn.Wqkv", "attention.query", "attention.key", "attention.value"),
    Rule("attn.Wo", "attention.output"),
    Rule("mlp_norm", "residual.norms.feed_forward"),
    Rule("mlp.Wi", "feed_forward.gate", "feed_forward.up"),
    Rule("mlp.Wo", "feed_forward.down"),
)
GLOBAL_EVERY = 3


def write_more(config: ModelConfig) -> Values:
    """Return their settings of window, angles and head, in the form that every version of transformers reads."""
    every = config.global_attention_every or 1
    activation = MODERN_BERT.write_activation(config)
    return {
        # Theirs is the window's whole width, ours how far a position sees and one more.
        "local_attention": 2 * ((config.attention_window or 1) - 1),
        "global_attn_every_n_layers": every,
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.local_rope_theta or config.rope_theta,
        "classifier_activation": activation,
        "classifier_bias": config.mlp_bias,
        "classifier_pooling": "mean",
    }


def read_more(theirs: Values) -> Values:
    """Return our keys of window, angles and head."""
    settings = theirs.get("rope_parameters") or {}
    thetas = {
        kind: settings.get(kind, {}).get("rope_theta", theirs[f"{old}_rope_theta"])
        for kind, old in (("full_attention", "global"), ("sliding_attention", "local"))
    }
    if theirs["classifier_activation"] != theirs["hidden_activation"]:
        raise ConfigError(
            "modernbert: classifier_activation must be hidden_activation, since here they are one key"
        )
    if theirs["classifier_bias"] != theirs["mlp_bias"]:
        raise ConfigError("modernbert: classifier_bias must be mlp_bias, since here they are one key")
    return {
        "attention_window": theirs["local_attention"] // 2 + 1,
        "global_attention_every": _global_every(theirs),
        "rope_theta": thetas["full_attention"],
        "local_rope_theta": thetas["sliding_attention"],
    }


def _global_every(theirs: Values) -> int:
    """Return after how many layers one sees everything."""
    types = theirs.get("layer_types")
    if types is None:
        return int(theirs["global_attn_every_n_layers"])
    everywhere = [index for index, kind in enumerate(types) if kind == "full_attention"]
    every = everywhere[1] if len(everywhere) > 1 else len(types)
    if everywhere != list(range(0, len(types), every)):
        raise ConfigError(f"modernbert: layer_types={types} do not repeat from the first layer on")
    return every


MODERN_BERT = Family(
    model_type="modernbert",
    architecture="ModernBertForMaskedLM",
    keys={
        "d_model": ("hidden_size",),
        "n_layers": ("num_hidden_layers",),
        "n_heads": ("num_attention_heads",),
        "d_ff": ("intermediate_size",),
        "context_length": ("max_position_embeddings",),
        "vocab_size": ("vocab_size",),
        "dropout": ("embedding_dropout", "attention_dropout", "mlp_dropout"),
        "norm_eps": ("norm_eps",),
        "norm_bias": ("norm_bias",),
        "attention_bias": ("attention_bias",),
        "mlp_bias": ("mlp_bias",),
        "head_bias": ("decoder_bias",),
        "tie_embeddings": ("tie_word_embeddings",),
    },
    constants={
        "architecture": "encoder",
        "norm": "layer",
        "residual": "pre",
        "position": "rotary",
        "embedding_norm": True,
        "head": "transformed",
    },
    required={},
    defaults={
        "embedding_dropout": 0.0,
        "attention_dropout": 0.0,
        "mlp_dropout": 0.0,
        "norm_eps": 1e-5,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "decoder_bias": True,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "local_attention": 128,
        "global_attn_every_n_layers": GLOBAL_EVERY,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
    },
    activation_key="hidden_activation",
    activations={
        "gelu": "geglu",
        "gelu_new": "geglu_tanh",
        "gelu_pytorch_tanh": "geglu_tanh",
        "silu": "swiglu",
    },
    base="model.",
    tokens="embeddings.tok_embeddings.weight",
    rules=(
        Rule("model.embeddings.tok_embeddings", "embedding.tokens"),
        Rule("model.embeddings.norm", "embedding.norm"),
        Rule("model.final_norm", "stack.norm"),
        Rule("head.dense", "unembedding.transform.dense"),
        Rule("head.norm", "unembedding.transform.norm"),
        Rule("decoder", "unembedding"),
    ),
    layers=(Layers("model.layers.{}", "stack.blocks.{}", LAYER_RULES),),
    head="decoder.weight",
    write_more=write_more,
    read_more=read_more,
)
