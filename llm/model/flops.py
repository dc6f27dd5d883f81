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


def flops_per_token(config: ModelConfig, training: bool = True, length: int | None = None) -> float:
    """Return the operations of the matrix products for one token of a sequence of `length` (context_length).

    Scores are computed of every token.
    For an encoder-decoder the token is one of the target, with a source as long as the target.
    """
    length = config.context_length if length is None else length
    read = length if config.architecture == "encoder_decoder" else 0
    return sequence_flops(config, length, read=read, scored=length, training=training) / length


def sequence_flops(
    config: ModelConfig, length: float, *, read: float = 0, scored: float, training: bool = True
) -> float:
    """Return the operations of the matrix products for a sequence of `length` tokens, `scored` of which get scores.

    `read` is the length of an encoder-decoder's source.
    A multiplication and an addition count as two. Attention counts as if no position were masked, and a training
    step as three forward passes: the convention of model-FLOPs utilisation (arXiv 2204.02311, appendix B).
    """
    width, query_width = config.d_model, config.n_heads * config.head_size
    keys_width = config.kv_heads * config.head_size
    weights = config.n_layers * length * _layer_weights(config) + scored * _head_weights(config)
    attended = config.n_layers * 2 * length**2 * query_width
    if config.architecture == "encoder_decoder":
        weights += config.encoder_layers * read * _layer_weights(config)
        weights += config.n_layers * width * 2 * (query_width * length + keys_width * read)
        attended += config.encoder_layers * 2 * read**2 * query_width
        attended += config.n_layers * 2 * length * read * query_width
    forward = 2 * (weights + attended)
    return float(3 * forward if training else forward)


def _matrix_weights(config: ModelConfig) -> int:
    """Return the number of weights in matrices but the tables that are looked up."""
    crossing = config.n_layers * _attention_weights(config)
    encoder = config.encoder_layers * _layer_weights(config) + crossing
    layers = config.n_layers * _layer_weights(config)
    return _head_weights(config) + layers + (encoder if config.architecture == "encoder_decoder" else 0)


def _layer_weights(config: ModelConfig) -> int:
    """Return the number of weights of a layer's attention to its own sequence and of its feed-forward."""
    matrices = (3 if config.activation in GATED else 2) * config.ff_size
    return _attention_weights(config) + config.d_model * matrices


def _attention_weights(config: ModelConfig) -> int:
    return config.d_model * config.head_size * (2 * config.n_heads + 2 * config.kv_heads)


def _head_weights(config: ModelConfig) -> int:
    """Return the number of weights between the hidden states and the scores."""
    if config.labels:
        return len(config.labels) * config.d_model + config.pooler * config.d_model**2
    transform = config.d_model**2 if config.head == "transformed" else 0
    return config.vocabulary * config.d_model + transform
