"""GPT-NeoX as Hugging Face writes it, and so Pythia: attention and feed-forward side by side, heads partly turned."""

from llm.errors import ConfigError
from llm.hub.rules import UNGATED, Family, Layers, Rule, Values
from llm.model import ModelConfig

LAYER_RULES = (
    Rule("input_layernorm", "residual.norms.attention"),
    Rule("attention.query_key_value", "attention.query", "attention.key", "attention.value", by_head=True),
    Rule("attention.dense", "attention.output"),
    Rule("post_attention_layernorm", "residual.norms.feed_forward"),
    Rule("mlp.dense_h_to_4h", "feed_forward.up"),
    Rule("mlp.dense_4h_to_h", "feed_forward.down"),
)


def write_more(config: ModelConfig) -> Values:
    """Return their rotary settings, in the form that every version of transformers reads, and the placing."""
    return {
        "rotary_pct": config.rotary_share,
        "rotary_emb_base": config.rope_theta,
        "use_parallel_residual": config.residual == "parallel",
    }


def read_more(theirs: Values) -> Values:
    """Return our keys from `rotary_pct` (transformers 4) or `rope_parameters` (5), and the placing."""
    rope = {
        "rope_theta": theirs["rotary_emb_base"],
        "partial_rotary_factor": theirs["rotary_pct"],
        "rope_type": "default",
    } | (theirs.get("rope_scaling") or {})
    rope |= theirs.get("rope_parameters") or {}
    if rope["rope_type"] != "default":
        raise ConfigError(f"gpt_neox: rotary settings {rope} are not supported, only the plain")
    return {
        "rope_theta": rope["rope_theta"],
        "rotary_share": rope["partial_rotary_factor"],
        "residual": "parallel" if theirs["use_parallel_residual"] else "pre",
    }


GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    keys={
        "d_model": ("hidden_size",),
        "n_layers": ("num_hidden_layers",),
        "n_heads": ("num_attention_heads",),
        "d_ff": ("intermediate_size",),
        "context_length": ("max_position_embeddings",),
        "vocab_size": ("vocab_size",),
        "dropout": ("hidden_dropout", "attention_dropout"),
        "norm_eps": ("layer_norm_eps",),
        "attention_bias": ("attention_bias",),
        "tie_embeddings": ("tie_word_embeddings",),
    },
    constants={"norm": "layer", "position": "rotary", "mlp_bias": True},
    required={},
    defaults={
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "layer_norm_eps": 1e-5,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000.0,
        "use_parallel_residual": True,
    },
    activation_key="hidden_act",
    activations=UNGATED,
    base="gpt_neox.",
    tokens="embed_in.weight",
    rules=(
        Rule("gpt_neox.embed_in", "embedding.tokens"),
        Rule("gpt_neox.final_layer_norm", "stack.norm"),
        Rule("embed_out", "unembedding"),
    ),
    layers=(Layers("gpt_neox.layers.{}", "stack.blocks.{}", LAYER_RULES),),
    ignored=r".*\.attention\.(masked_)?bias|.*\.rotary_emb\.inv_freq",
    head="embed_out.weight",
    write_more=write_more,
    read_more=read_more,
)
