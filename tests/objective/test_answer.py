"""The cross-entropy of an answer's edges is the mean of both, over the rows that have targets."""

import pytest
import torch

from llm.data.collators.base import Batch
from llm.data.sampling.windows import IGNORED
from llm.objective.answer import AnswerCrossEntropy


class Fixed(torch.nn.Module):
    """Gives the scores that it was made with."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, tokens_bt, **inputs):
        return self.scores


# An answer of one word, of two, and none, which the text as a whole stands for; the second row is of nothing.
@pytest.mark.parametrize(
    ("edges", "start", "end"), [([0, 3, 0, 0], 1, 1), ([0, 0, 1, 2], 2, 3), ([3, 0], 0, 0)]
)
def test_the_loss_is_the_mean_of_both_edges(edges, start, end):
    targets = torch.full((2, 6), IGNORED)
    targets[0, : len(edges)] = torch.tensor(edges)
    scores = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
    loss = AnswerCrossEntropy()(Fixed(scores), Batch(targets, targets, torch.arange(2)))
    logs = scores[0, : len(edges)].log_softmax(0)
    assert loss.n_targets == 1
    assert loss.total.item() == pytest.approx(-float(logs[start, 0] + logs[end, 1]) / 2, rel=1e-5)
