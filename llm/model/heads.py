"""What enters and leaves a stack: token embeddings on one side, scores of the vocabulary on the other."""

# Shape legend: b batch, t time, d width, v vocabulary.

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.model.config import ModelConfig
from llm.model.position import ADDED_POSITIONS


class Embedding(nn.Module):
    """Token ids to vectors, with positions added where the config wants them added."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model) if config.scale_embeddings else None
        self.tokens = nn.Embedding(config.vocabulary, config.d_model)
        positions = ADDED_POSITIONS.get(config.position)
        self.positions = positions(config) if positions is not None else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens_bt: Tensor, start: int) -> Tensor:
        """Return the vectors (b, t, d) of tokens whose first position is `start`."""
        x_btd = self.tokens(tokens_bt)
        if self.scale is not None:
            x_btd = x_btd * self.scale
        if self.positions is not None:
            x_btd = self.positions(x_btd, start)
        return self.dropout(x_btd)


class Unembedding(nn.Module):
    """Hidden states to logits by one row a token, then the soft cap; tied, it has no rows of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = (config.vocabulary, config.d_model)
        self.weight = None if config.tie_embeddings else nn.Parameter(torch.empty(size))
        self.soft_cap = config.logit_soft_cap

    def forward(self, hidden_btd: Tensor, tied_vd: Tensor) -> Tensor:
        """Return logits (b, t, v). The tied rows come as an argument, so that no weight has two names."""
        return soft_capped(
            F.linear(hidden_btd, tied_vd if self.weight is None else self.weight), self.soft_cap
        )


def soft_capped(logits: Tensor, cap: float | None) -> Tensor:
    """Squeeze logits smoothly into (-cap, cap); None leaves them."""
    return logits if cap is None else cap * torch.tanh(logits / cap)
