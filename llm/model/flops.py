"""How many parameters a config has and how many floating-point operations a token costs."""

import torch

from llm.model.config import GATED, ModelConfig
from llm.model.transformer import Transformer


def parameter_count(config: ModelConfig) -> int:
    """Return the number of trained values, counted on a model without storage; tied ones count once."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transformer(config).parameters())


def least_parameters(config: ModelConfig) -> int:
    """Return a number of values that a model of `config` has at least, without making one."""
    return _matrix_weights(config)


def flops_per_token(
    config: ModelConfig, training: bool = True, length: int | None = None, scored: float = 1.0
) -> float:
    """Return the operations of the matrix products for one token of a sequence of `length` (context_length).

    `scored` is the share of the tokens whose scores are computed.
    For an encoder-decoder the token is one of the target, with a source as long as the target.
    A multiplication and an addition count as two. Attention counts as if no position were masked, and a training
    step as three forward passes: the convention of model-FLOPs utilisation (arXiv 2204.02311, appendix B).
    """
    length = config.context_length if length is None else length
    attended = 2 * length * config.n_heads * config.head_size * _attentions(config)
    skipped = (1 - scored) * _head_weights(config)
    forward = 2 * (_matrix_weights(config) - skipped + attended)
    return float(3 * forward if training else forward)


def _matrix_weights(config: ModelConfig) -> int:
    """Return the number of weights that multiply each token: every matrix but the tables that are looked up."""
    heads = config.head_size * (2 * config.n_heads + 2 * config.kv_heads)
    matrices = (3 if config.activation in GATED else 2) * config.ff_size
    encoder = config.encoder_layers if config.architecture == "encoder_decoder" else 0
    layers = config.n_layers + encoder
    return _head_weights(config) + config.d_model * (_attentions(config) * heads + layers * matrices)


def _head_weights(config: ModelConfig) -> int:
    """Return the number of weights between the hidden states and the scores."""
    transform = config.d_model**2 if config.head == "transformed" else 0
    return config.vocabulary * config.d_model + transform


def _attentions(config: ModelConfig) -> int:
    """Return how often a token passes attention."""
    if config.architecture == "encoder_decoder":
        return config.encoder_layers + 2 * config.n_layers
    return config.n_layers
