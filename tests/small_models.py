"""Small models: the shapes that several tests begin with, and weights far from their small first values."""

import torch

SHAPE = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48, "vocab_size": 264, "context_length": 32}
LLAMA = {"norm": "rms", "position": "rotary", "activation": "swiglu", "n_kv_heads": 2}
GPT2 = {
    "norm": "layer",
    "position": "learned",
    "activation": "gelu_tanh",
    "attention_bias": True,
    "mlp_bias": True,
}


def shaken(model, size, seed=0):
    """The model, its trained weights moved by about `size`, so that what it tells varies and stands out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=generator)
    return model
