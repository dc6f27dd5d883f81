"""The objective equals torch's own, smooths in training alone, and leaves out what is not a target."""

import pytest
import torch
import torch.nn.functional as F

from llm.data.collators.base import Batch
from llm.data.sampling.windows import IGNORED
from llm.model import ModelConfig, Transformer, init_weights
from llm.objective.cross_entropy import CrossEntropy


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
