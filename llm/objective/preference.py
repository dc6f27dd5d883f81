"""Preferences: the better of two answers is made likelier than the worse, beside what the reference model says of both.

Shapes: b preferences, t time, v vocabulary; rows are in turn a better and a worse answer.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.bounds import NotNegative, Positive
from llm.data.collators.base import Batch
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.objective.loss import Loss

Kind = Literal["dpo", "ipo", "simpo"]


def answer_scores(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The log-probability of each answer (b, 2), in nats, and how many tokens it has (b, 2)."""
    logits_btv = model(batch.tokens_bt, **batch.inputs()).float()
    is_answer_bt = batch.targets_bk != IGNORED
    negative_bt = F.cross_entropy(
        logits_btv.flatten(0, 1), batch.targets_bk.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(batch.targets_bk)
    return -negative_bt.sum(1).unflatten(0, (-1, 2)), is_answer_bt.sum(1).unflatten(0, (-1, 2))


class PreferenceLoss:
    """DPO (arXiv 2305.18290, equation 7), IPO (arXiv 2310.12036, equation 17) or SimPO (arXiv 2405.14734, equation 6).

    IPO's and SimPO's log-probabilities are means over an answer's tokens, or the losses would grow with its length.

    Args:
        kind: dpo, ipo or simpo; the last one needs no reference model.
        beta: how much a reward weighs; of ipo the tau of its paper.
        margin: by how much the better answer's reward is to exceed the worse's, of simpo alone (gamma).

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(self, kind: Kind = "dpo", beta: Positive = 0.1, margin: NotNegative = 0.5) -> None:
        # What a run's folder says is not checked again when the run is evaluated.
        if kind not in ("dpo", "ipo", "simpo"):
            raise ConfigError(f"task.objective.kind={kind}: it is dpo, ipo or simpo.")
        if beta <= 0 or margin < 0:
            raise ConfigError(f"task.objective: beta={beta} must be above 0, and margin={margin} at least 0.")
        self.kind, self.beta, self.margin = kind, beta, margin

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with what the reference model says."""
        return self.kind != "simpo"

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Score `batch` by `model`; pairs of nothing don't count."""
        margins_b, counts_b = self.margins(model, batch)
        return Loss((self.losses(margins_b) * counts_b).sum(), counts_b.sum(), batch.divisor)

    def margins(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """By how much the better answer's reward exceeds the worse's (b,), and which pairs count (b,)."""
        scores_b2, n_tokens_b2 = answer_scores(model, batch)
        counts_b = (n_tokens_b2 > 0).all(1)
        return self.rewards(scores_b2, n_tokens_b2, batch.reference_b2) @ scores_b2.new_tensor(
            [1.0, -1.0]
        ), counts_b

    def rewards(self, scores_b2: Tensor, n_tokens_b2: Tensor, reference_b2: Tensor | None) -> Tensor:
        """The implicit rewards (b, 2) of answers with these log-probabilities.

        Raises:
            ConfigError: the reference model's are needed and not there.
        """
        if not self.needs_reference:
            reference_b2 = torch.zeros_like(scores_b2)
        if reference_b2 is None:
            raise ConfigError(
                "task=dpo compares with a reference model, which training also starts from: give one by init_from=."
            )
        lengths_b2 = 1 if self.kind == "dpo" else n_tokens_b2.clamp(min=1)
        return self.beta * (scores_b2 - reference_b2) / lengths_b2

    def losses(self, margins_b: Tensor) -> Tensor:
        """The loss of each pair (b,)."""
        if self.kind == "ipo":
            return torch.square(margins_b / self.beta - 1 / (2 * self.beta))
        return -F.logsigmoid(margins_b - (self.margin if self.kind == "simpo" else 0.0))
