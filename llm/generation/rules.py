"""What changes a request's logits before its draw: biases by token, and penalties on what was written.

Shapes: v vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# From logits (1, v) and the tokens drawn so far to logits (1, v).
Rule = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Bias:
    """Adds a number to the logits of some tokens."""

    by_token: Mapping[int, float]

    def __call__(self, logits_1v: Tensor, new: Sequence[int]) -> Tensor:
        """Return the logits with what they are shifted by."""
        ids = torch.tensor(list(self.by_token), device=logits_1v.device)
        shift = torch.tensor(list(self.by_token.values()), device=logits_1v.device, dtype=logits_1v.dtype)
        return logits_1v.index_add(1, ids, shift[None])


@dataclass(frozen=True)
class Penalties:
    """Lowers the logits of tokens that were drawn: `frequency` for each time, `presence` once."""

    frequency: float
    presence: float

    def __call__(self, logits_1v: Tensor, new: Sequence[int]) -> Tensor:
        """Return the logits less what the drawn tokens cost; the prompt's own are free."""
        drawn = torch.tensor(new, device=logits_1v.device, dtype=torch.long)
        count_v = torch.bincount(drawn, minlength=logits_1v.shape[-1])
        return logits_1v - self.frequency * count_v - self.presence * (count_v > 0)
