"""GPT-2 as Hugging Face writes it."""

from llm.hub.rules import UNGATED, Family, Layers, Rule

LAYER_RULES = (
    Rule("ln_1", "residual.norms.attention"),
    Rule("attn.c_attn", "attention.query", "attention.key", "attention.value", transposed=True),
    Rule("attn.c_proj", "attention.output", transposed=True),
    Rule("ln_2", "residual.norms.feed_forward"),
    Rule("mlp.c_fc", "feed_forward.up", transposed=True),
    Rule("mlp.c_proj", "feed_forward.down", transposed=True),
)

GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    keys={
        "d_model": ("n_embd",),
        "n_layers": ("n_layer",),
        "n_heads": ("n_head",),
        "d_ff": ("n_inner",),
        "context_length": ("n_positions",),
        "vocab_size": ("vocab_size",),
        "dropout": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        "norm_eps": ("layer_norm_epsilon",),
        "tie_embeddings": ("tie_word_embeddings",),
    },
    constants={
        "norm": "layer",
        "residual": "pre",
        "position": "learned",
        "attention_bias": True,
        "mlp_bias": True,
    },
    required={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    defaults={
        "n_inner": None,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
    },
    activation_key="activation_function",
    activations=UNGATED,
    base="transformer.",
    tokens="wte.weight",
    rules=(
        Rule("transformer.wte", "embedding.tokens"),
        Rule("transformer.wpe", "embedding.positions"),
        Rule("transformer.ln_f", "stack.norm"),
        Rule("lm_head", "unembedding"),
    ),
    layers=(Layers("transformer.h.{}", "stack.blocks.{}", LAYER_RULES),),
    ignored=r".*\.attn\.(masked_)?bias",  # the causal mask
)
