"""The squared error is in variances of the training text's numbers, and a pair of nothing has none."""

import math

import numpy as np
import torch

from llm.data.collators.base import Setting
from llm.data.collators.labels import NumberCollator
from llm.data.collators.pairs import NOTHING, Pair
from llm.model import ModelConfig
from llm.objective.squared_error import SquaredError
from llm.tokenizer import ByteSpec

TOKENIZER = ByteSpec().build()


def pair(text, label):
    return Pair(*(np.array([*TOKENIZER.encode(side), TOKENIZER.end_of_text]) for side in (text, label)))


class Told(torch.nn.Module):
    config = ModelConfig(labels=("number",), labelled="number", number_std=2.0)

    def forward(self, tokens_bt, **inputs):
        return torch.tensor([[[5.0]], [[1.0]]])


def test_the_loss_is_in_variances_and_leaves_nothing_out_of_it():
    config = ModelConfig(architecture="encoder", labels=("number",), labelled="number")
    batch = NumberCollator(Setting(TOKENIZER, 0, config))([pair("a", "-1.5"), NOTHING], np.arange(2))
    assert batch.targets_bk[0].item() == -1.5
    assert math.isnan(batch.targets_bk[1].item())
    loss = SquaredError()(Told(), batch)
    assert (loss.total.item(), loss.n_targets.item()) == (6.5**2 / 4, 1)
