"""Preferences: log-probabilities of answers alone, and the losses of the papers on fixed numbers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.model import ModelConfig, Transformer, init_weights
from llm.objective.preference import PreferenceLoss, answer_scores

SCORES = torch.tensor([[-10.0, -12.0], [-30.5, -20.25], [-3.0, -3.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-11.0, -11.5], [-31.0, -22.0], [-4.0, -2.5]], dtype=torch.float64)
LENGTHS = torch.tensor([[5, 6], [10, 4], [2, 3]])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def losses(kind, beta, margin=0.5):
    objective = PreferenceLoss(kind, beta, margin)
    rewards = objective.rewards(SCORES, LENGTHS, REFERENCE)
    return objective.losses(rewards[:, 0] - rewards[:, 1]).tolist()


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_the_losses_are_the_papers(beta):
    rows = list(zip(SCORES.tolist(), REFERENCE.tolist(), LENGTHS.tolist(), strict=True))
    ratio = [(w - rw) - (l - rl) for (w, l), (rw, rl), _ in rows]  # noqa: E741
    assert losses("dpo", beta) == pytest.approx([-math.log(sigmoid(beta * h)) for h in ratio], rel=1e-12)
    means = [(w - rw) / n - (l - rl) / m for (w, l), (rw, rl), (n, m) in rows]  # noqa: E741
    assert losses("ipo", beta) == pytest.approx([(h - 1 / (2 * beta)) ** 2 for h in means], rel=1e-12)
    rewards = [beta * w / n - beta * l / m for (w, l), _, (n, m) in rows]  # noqa: E741
    wanted = [-math.log(sigmoid(reward - 0.3)) for reward in rewards]
    assert losses("simpo", beta, 0.3) == pytest.approx(wanted, rel=1e-12)
    # An untrained policy is its own reference: DPO then begins at ln 2, and IPO at 1 / (2 tau) squared.
    same = PreferenceLoss("dpo", beta).rewards(REFERENCE, LENGTHS, REFERENCE)
    assert PreferenceLoss("dpo", beta).losses(same[:, 0] - same[:, 1]).tolist() == pytest.approx(
        [math.log(2)] * 3
    )


@pytest.mark.parametrize(("kind", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo"), ("simpo", "simpo")])
def test_the_losses_are_those_of_trl(kind, theirs):
    cpo = pytest.importorskip("trl.experimental.cpo")
    device = SimpleNamespace(device="cpu")
    settings = {"alpha": 0.0, "beta": 0.2, "simpo_gamma": 0.4, "label_smoothing": 0.0, "accelerator": device}
    ratios = SCORES if kind == "simpo" else SCORES - REFERENCE
    scores = ratios if kind == "dpo" else ratios / LENGTHS
    # What CPO is to log-probabilities, DPO and IPO are to their ratios with the first model's.
    found = cpo.CPOTrainer.cpo_loss(
        SimpleNamespace(loss_type=theirs, **settings), scores[:, 0], scores[:, 1]
    )[0]
    assert losses(kind, 0.2, 0.4) == pytest.approx(found.tolist(), rel=1e-12)


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.01, 2))
def test_the_gradient_of_dpo_is_the_papers(better, worse, beta):
    scores = torch.tensor([[better, worse]], dtype=torch.float64, requires_grad=True)
    objective = PreferenceLoss("dpo", beta)
    rewards = objective.rewards(scores, LENGTHS[:1], REFERENCE[:1])
    objective.losses(rewards[:, 0] - rewards[:, 1]).sum().backward()
    # Section 4: beta times the sigmoid of how wrongly the implicit reward orders them.
    weight = beta * torch.sigmoid(rewards[0, 1] - rewards[0, 0]).item()
    assert scores.grad.tolist()[0] == pytest.approx([-weight, weight])


def batch_of(rows):
    """A batch of rows of ids, of which what follows -1 is the answer."""
    length = max(map(len, rows))
    tokens, targets = np.zeros((len(rows), length), np.int64), np.full((len(rows), length), IGNORED)
    for number, row in enumerate(rows):
        at = row.index(-1)
        ids = np.array(row[:at] + row[at + 1 :])
        tokens[number, : len(ids) - 1] = ids[:-1]
        targets[number, at - 1 : len(ids) - 1] = ids[at:]
    fields = {"tokens_bt": torch.from_numpy(tokens), "targets_bk": torch.from_numpy(targets)}
    return SimpleNamespace(**fields, inputs=dict, divisor=None, reference_b2=torch.zeros(len(rows) // 2, 2))


def test_scores_are_of_answers_alone():
    model = Transformer(
        ModelConfig(d_model=16, n_layers=1, n_heads=2, d_ff=16, vocab_size=9, context_length=12)
    ).eval()
    init_weights(model, 0)
    rows = [[1, 2, 3, -1, 4, 5], [1, 2, 3, -1, 6, 7, 8, 5], [2, -1, 4, 5], [2, -1, 1, 5]]
    scores, lengths = answer_scores(model, batch_of(rows))
    assert lengths.tolist() == [[2, 4], [2, 2]]
    for row, score in zip(rows, scores.flatten().tolist(), strict=True):
        at = row.index(-1)
        ids = torch.tensor(row[:at] + row[at + 1 :])
        logs = F.log_softmax(model(ids[None, :-1])[0].double(), -1)
        wanted = logs[range(at - 1, len(ids) - 1), ids[at:]].sum()
        assert score == pytest.approx(wanted.item(), rel=1e-5)


def test_pairs_of_nothing_do_not_count():
    model = Transformer(
        ModelConfig(d_model=16, n_layers=1, n_heads=2, d_ff=16, vocab_size=9, context_length=12)
    ).eval()
    init_weights(model, 0)
    batch = batch_of([[1, 2, -1, 4], [1, 2, -1, 5], [1, 2, -1, 5], [1, 2, -1, 5]])
    batch.targets_bk[2:] = IGNORED
    loss = PreferenceLoss()(model, batch)
    assert loss.n_targets.item() == 1
    alone = PreferenceLoss()(model, batch_of([[1, 2, -1, 4], [1, 2, -1, 5]]))
    assert loss.total.item() == pytest.approx(alone.total.item())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "kto"}, "kind=kto"),
        ({"beta": 0}, "beta=0 must be above 0"),
        ({"margin": -1}, "margin=-1 at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        PreferenceLoss(**keys)


def test_what_the_first_model_says_is_needed():
    with pytest.raises(ConfigError, match="init_from"):
        PreferenceLoss("ipo").rewards(SCORES, LENGTHS, None)
    assert PreferenceLoss("simpo").rewards(SCORES, LENGTHS, None).shape == (3, 2)
