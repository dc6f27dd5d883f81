"""Preferences: log-probabilities of answers alone, and the losses of the papers on fixed numbers."""

import math
from collections import defaultdict
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


# What TRL 1.16.0 gives of the same numbers, beta 0.2 and a margin of 0.4, by
# python -c "from tests.objective.test_preference import of_trl; print({kind: of_trl(kind) for kind in ('dpo', 'ipo', 'simpo')})"
OF_TRL = {
    "dpo": [0.5543552444685271, 0.8259394198788436, 0.5543552444685271],
    "ipo": [4.913611111111112, 8.33765625, 3.3611111111111116],
    "simpo": [0.9130152523999526, 0.6918979618097418, 0.9740769841801067],
}


def of_trl(kind):
    """The loss of each pair by TRL's own code: its DPO trainer's for DPO and IPO, its CPO trainer's for SimPO."""
    if kind == "simpo":
        from trl.experimental.cpo import CPOTrainer

        settings = {"alpha": 0.0, "beta": 0.2, "simpo_gamma": 0.4, "label_smoothing": 0.0}
        trainer = SimpleNamespace(loss_type=kind, accelerator=SimpleNamespace(device="cpu"), **settings)
        return CPOTrainer.cpo_loss(trainer, *(SCORES / LENGTHS).unbind(1))[0].tolist()
    return [_of_dpo_trainer(kind, *pair) for pair in zip(SCORES, REFERENCE, LENGTHS, strict=True)]


def _of_dpo_trainer(kind, scores_2, reference_2, lengths_2):
    """The loss of one pair; what a model would say of each token is its answer's score over the length."""
    from trl import DPOTrainer

    longest = int(lengths_2.max()) + 1
    is_answer = torch.zeros(2, longest, dtype=torch.long)
    for row, length in enumerate(lengths_2.tolist()):
        is_answer[row, 1 : length + 1] = 1
    each = (scores_2 / lengths_2)[:, None] * is_answer[:, 1:]
    told = SimpleNamespace(
        log_probs=each, **dict.fromkeys(("entropy", "mean_logits"), each), is_top1=each > 0
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[{"dpo": "sigmoid"}.get(kind, kind)],
        loss_weights=[1.0],
        beta=0.2,
        use_weighting=False,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    inputs = {
        "input_ids": torch.zeros_like(is_answer),
        "attention_mask": torch.ones_like(is_answer),
        "completion_mask": is_answer,
        "ref_chosen_logps": reference_2[:1],
        "ref_rejected_logps": reference_2[1:],
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: told, inputs, return_outputs=False).item()


@pytest.mark.parametrize("kind", OF_TRL)
def test_the_losses_are_those_of_trl(kind):
    assert losses(kind, 0.2, 0.4) == pytest.approx(OF_TRL[kind], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_TRL)
def test_trl_gives_these_losses_still(kind):
    pytest.importorskip("trl", reason="pip install trl: it is compared with, and not among what this needs")
    assert of_trl(kind) == pytest.approx(OF_TRL[kind], rel=1e-12)


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


def test_what_the_reference_model_says_is_needed():
    with pytest.raises(ConfigError, match="init_from"):
        PreferenceLoss("ipo").rewards(SCORES, LENGTHS, None)
    assert PreferenceLoss("simpo").rewards(SCORES, LENGTHS, None).shape == (3, 2)
