"""How the next token is drawn from logits: filters, temperature, a generator of its own.

Shapes: b batch, t tokens so far, v vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.bounds import LEAST_PENALTY, MOST_PENALTY
from llm.errors import ConfigError, TrainingError

# Below this a division by it can overflow float32; the most likely token is then drawn anyway.
_GREEDY_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: penalty, temperature, top_k, top_p and min_p, in this order; None leaves one out.

    Args:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: so many of the most likely tokens stay, at least 1.
        top_p: the fewest most likely tokens stay whose probabilities add up to this, above 0 and at most 1
            (arXiv 1904.09751).
        min_p: tokens of at least this times the largest probability stay, between 0 and 1 (arXiv 2407.01082).
        repetition_penalty: of tokens so far, the prompt's included, positive logits are divided by this and negative ones
            multiplied, above 0 (arXiv 1909.05858).

    Raises:
        ConfigError: one of them is out of its bounds.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, lambda x: x >= 0, "0 or above")
        _check("top_k", self.top_k, lambda x: x >= 1 and x == int(x), "a whole number of at least 1")
        _check("top_p", self.top_p, lambda x: 0 < x <= 1, "above 0 and at most 1")
        _check("min_p", self.min_p, lambda x: 0 <= x <= 1, "between 0 and 1")
        penalty, penalties = self.repetition_penalty, f"from {LEAST_PENALTY:g} to {MOST_PENALTY:g}"
        _check("repetition_penalty", penalty, lambda x: LEAST_PENALTY <= x <= MOST_PENALTY, penalties)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature <= _GREEDY_TEMPERATURE

    def draw(self, logits_bv: Tensor, tokens_bt: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The next tokens (b,), given logits and all tokens so far, the prompt's included; TrainingError on NaN.

        There is a generator for each row, or one for all.
        """
        logits_bv = self.penalise(logits_bv.float(), tokens_bt)
        if not logits_bv.amax(dim=-1).isfinite().all():
            raise TrainingError(
                "The model's scores for the next token are not finite: training diverged, or the weights are damaged. "
                "Take an earlier checkpoint, or train with a smaller optimizer.lr."
            )
        if self.greedy:
            return likeliest(logits_bv)
        return drawn_from(self.filter(logits_bv).softmax(dim=-1), generators)

    def penalise(self, logits_bv: Tensor, tokens_bt: Tensor) -> Tensor:
        """The logits with those of `tokens_bt` made less likely."""
        if self.repetition_penalty is None:
            return logits_bv
        seen_bt = logits_bv.gather(1, tokens_bt)
        factor_bt = torch.where(seen_bt < 0, self.repetition_penalty, 1 / self.repetition_penalty)
        return logits_bv.scatter(1, tokens_bt, seen_bt * factor_bt)

    def filter(self, logits_bv: Tensor) -> Tensor:
        """The logits over the temperature, minus infinity where a filter takes a token out."""
        logits_bv = logits_bv / self.temperature
        if self.top_k is not None:
            logits_bv = keep_top_k(logits_bv, self.top_k)
        if self.top_p is not None:
            logits_bv = keep_top_p(logits_bv, self.top_p)
        if self.min_p is not None:
            logits_bv = keep_min_p(logits_bv, self.min_p)
        return logits_bv


def likeliest(logits_bv: Tensor) -> Tensor:
    """The token (b,) of each row that scores highest."""
    # Of eight rows of 50,257 on a CPU torch's argmax takes 0.40 ms, numpy's 0.02.
    if not logits_bv.is_cpu:
        return logits_bv.argmax(dim=-1)
    return torch.from_numpy(logits_bv.detach().numpy().argmax(axis=-1))


def drawn_from(probabilities_bv: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A token (b,) of each row: the first at which the probabilities add up to more than a uniform number.

    A number a row costs a tenth of `torch.multinomial`, which draws one for each token of the vocabulary.
    """
    # Added up in float64, where the rounding of a hundred thousand terms is far below any probability that counts.
    dtype = torch.float32 if probabilities_bv.device.type == "mps" else torch.float64
    each = len(probabilities_bv) // len(generators)
    uniform_b = torch.cat(
        [
            torch.rand(each, generator=generator, device=generator.device, dtype=dtype)
            for generator in generators
        ]
    )
    total_bv = probabilities_bv.cumsum(-1, dtype=dtype)
    wanted_b1 = (uniform_b * total_bv[:, -1]).unsqueeze(-1)
    found_b1 = torch.searchsorted(total_bv, wanted_b1, right=True)
    return found_b1.squeeze(-1).clamp(max=probabilities_bv.shape[-1] - 1)


def keep_top_k(logits_bv: Tensor, k: int) -> Tensor:
    """Keep the k largest, and what equals the least of them."""
    least_b1 = logits_bv.topk(min(int(k), logits_bv.shape[-1])).values[:, -1:]
    return logits_bv.masked_fill(logits_bv < least_b1, -math.inf)


def keep_top_p(logits_bv: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens whose probabilities add up to p, at least one."""
    sorted_bv, order_bv = logits_bv.sort(dim=-1)
    drop_bv = sorted_bv.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    drop_bv[:, -1] = False
    return logits_bv.masked_fill(drop_bv.scatter(1, order_bv, drop_bv), -math.inf)


def keep_min_p(logits_bv: Tensor, p: float) -> Tensor:
    """Keep tokens of at least p times the probability of the most likely."""
    probabilities_bv = logits_bv.softmax(dim=-1)
    least_b1 = p * probabilities_bv.amax(dim=-1, keepdim=True)
    return logits_bv.masked_fill(probabilities_bv < least_b1, -math.inf)


def _check(key: str, value: float | None, allowed: Callable[[float], bool], what: str) -> None:
    if value is None and key != "temperature":
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not allowed(value):  # type: ignore[arg-type]
        raise ConfigError(f"{key}={value}: it must be {what}.")
