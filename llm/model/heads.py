"""What enters and leaves a stack: token embeddings on one side, scores of the vocabulary and a pool on the other.

Shapes: b batch, t time, d width, v vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.model.config import ModelConfig
from llm.model.layers import ACTIVATIONS, build_norm
from llm.model.position import ADDED_POSITIONS, Start

# What a model has for its labels alone, and for its task, by the beginning of its weights' names.
LABEL_PARTS = ("pooler.", "label_head.")
TASK_PARTS = ("unembedding.", *LABEL_PARTS)


class Embedding(nn.Module):
    """Token ids to vectors, with positions and segments added where the config wants them added."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model) if config.scale_embeddings else None
        self.tokens = nn.Embedding(config.vocabulary, config.d_model)
        positions = ADDED_POSITIONS.get(config.position)
        self.positions = positions(config) if positions is not None else None
        self.segments = nn.Embedding(config.n_segments, config.d_model) if config.n_segments else None
        self.norm = build_norm(config, config.d_model) if config.embedding_norm else nn.Identity()
        self.dropout: nn.Module = nn.Dropout(config.dropout)

    def forward(self, tokens_bt: Tensor, start: Start = 0, segments_bt: Tensor | None = None) -> Tensor:
        """Return the vectors (b, t, d) of tokens whose first position is `start`; all of segment 0 by default."""
        x_btd = self.tokens(tokens_bt)
        if self.scale is not None:
            x_btd = x_btd * self.scale
        if self.positions is not None:
            x_btd = self.positions(x_btd, start)
        if self.segments is not None:
            x_btd = x_btd + self.segments(torch.zeros_like(tokens_bt) if segments_bt is None else segments_bt)
        return self.dropout(self.norm(x_btd))


class Unembedding(nn.Module):
    """Hidden states to logits by one row a token, with what the config wants before and after it.

    Tied, it has no rows of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = (config.vocabulary, config.d_model)
        self.transform = Transform(config) if config.head == "transformed" else nn.Identity()
        self.scale = config.d_model**-0.5 if config.scale_logits else None
        self.weight = None if config.tie_embeddings else nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(config.vocabulary)) if config.head_bias else None
        self.soft_cap = config.logit_soft_cap

    def forward(self, hidden_btd: Tensor, tied_vd: Tensor) -> Tensor:
        """Return logits (b, t, v). The tied rows come as an argument, so that no weight has two names."""
        return self.score(self.prepare(hidden_btd), tied_vd if self.weight is None else self.weight)

    def prepare(self, hidden_btd: Tensor) -> Tensor:
        """Return what the rows are multiplied with."""
        hidden_btd = self.transform(hidden_btd)
        return hidden_btd if self.scale is None else hidden_btd * self.scale

    def score(self, prepared_btd: Tensor, rows_vd: Tensor) -> Tensor:
        """Return logits (b, t, v) by these rows."""
        return soft_capped(F.linear(prepared_btd, rows_vd, self.bias), self.soft_cap)


class Transform(nn.Module):
    """BERT's layer, activation and norm between the last hidden states and the scores."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model, bias=config.mlp_bias)
        self.activate = ACTIVATIONS[config.activation]
        self.norm = build_norm(config, config.d_model)

    def forward(self, hidden_btd: Tensor) -> Tensor:
        """Map each position by itself; the shape stays."""
        return self.norm(self.activate(self.dense(hidden_btd)))


class Pooler(nn.Module):
    """BERT's layer and tanh, which make a vector for a whole text of one of its positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden_btd: Tensor) -> Tensor:
        """Map each position by itself; the shape stays."""
        return torch.tanh(self.dense(hidden_btd))


class LabelHead(nn.Module):
    """Hidden states to a score for each of the config's labels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.d_model, len(config.labels))
        self.mean, self.std = config.number_mean, config.number_std

    def forward(self, hidden_btd: Tensor) -> Tensor:
        """Return scores (b, t, labels); of numbers their values, since the weights deal with standardized ones."""
        return self.output(self.dropout(hidden_btd)) * self.std + self.mean


def soft_capped(logits: Tensor, cap: float | None) -> Tensor:
    """Squeeze logits smoothly into (-cap, cap); None leaves them."""
    return logits if cap is None else cap * torch.tanh(logits / cap)
