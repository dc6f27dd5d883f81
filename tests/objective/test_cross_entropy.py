"""The objective equals torch's own, smooths in training alone, and leaves out what is not a target."""

import pytest
import torch
import torch.nn.functional as F

from llm.data.collators.base import Batch
from llm.data.sampling.windows import IGNORED
from llm.model import ModelConfig, Transformer, init_weights
from llm.objective.cross_entropy import CrossEntropy, LabelCrossEntropy


@pytest.mark.parametrize("training", [True, False])
def test_labels_are_smoothed_in_training_alone(training):
    model = Transformer(ModelConfig(d_model=16, n_layers=1, n_heads=2, context_length=8, vocab_size=13))
    init_weights(model, 0)
    model.train(training)
    tokens = torch.randint(13, (2, 8), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1)
    targets[:, -1] = IGNORED
    loss = CrossEntropy(label_smoothing=0.1)(model, Batch(tokens, targets, torch.arange(2)))
    smoothing = 0.1 if training else 0.0
    wanted = F.cross_entropy(
        model(tokens)[:, :-1].flatten(0, 1), targets[:, :-1].flatten(), label_smoothing=smoothing
    )
    assert loss.n_targets == 14
    torch.testing.assert_close(loss.mean, wanted)


def test_weights_multiply_the_losses_of_their_labels_and_the_mean_is_over_the_number_of_targets():
    labels = ("a", "b", "c")
    config = ModelConfig(
        d_model=16, n_layers=1, n_heads=2, context_length=8, vocab_size=13, labels=labels, labelled="words"
    )
    model = Transformer(config)
    init_weights(model, 0)
    tokens = torch.randint(13, (2, 8), generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 1, 2, 0, 1, 2, 0, IGNORED]] * 2)
    batch = Batch(tokens, targets, torch.arange(2))
    loss = LabelCrossEntropy(label_weights={"b": 3.0, "c": 0.5})(model, batch)
    nats = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), targets[:, :-1].flatten(), reduction="none")
    weights = torch.tensor([1.0, 3.0, 0.5])[targets[:, :-1].flatten()]
    assert loss.n_targets == 14
    torch.testing.assert_close(loss.mean, (weights * nats).sum() / 14)
    doubled = LabelCrossEntropy(label_weights=dict.fromkeys(labels, 2.0))(model, batch)
    torch.testing.assert_close(doubled.mean, 2 * nats.mean())
