"""Figures beside other libraries', on a thousand random cases each; entities, answers and ROUGE stand beside their own."""

import random

import numpy as np
import pytest
import sacrebleu
import sklearn
import torch
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from llm.evaluation.classification import BINS, label_figures
from llm.evaluation.pairs import match_figures

WORDS = ["the", "cats", "cat", "sat", "on", "Matte", "größer", "3.5", "!", "def", "f(x):", "\n"]
CASES = 1000


def test_chrf_is_that_of_sacrebleu():
    choose = random.Random(0)
    for _ in range(CASES):
        texts = [
            [" ".join(choose.choices(WORDS, k=choose.randint(1, 9))) for _ in range(3)] for _ in range(2)
        ]
        assert match_figures(*texts)["chrf"] == sacrebleu.corpus_chrf(texts[0], [texts[1]]).score


@pytest.mark.slow
def test_figures_of_labels_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        n_labels = 2 + case % 5
        targets_n = torch.randint(n_labels, (1 + case % 40,), generator=generator)
        logits_nl = torch.randn(len(targets_n), n_labels, generator=generator) * (1 + case % 3)
        figures = label_figures(logits_nl, targets_n)
        right, told = targets_n.numpy(), logits_nl.argmax(-1).numpy()
        assert figures["accuracy"] == pytest.approx((told == right).mean(), abs=1e-6)
        seen = np.union1d(right, told)
        with sklearn.config_context(skip_parameter_validation=True):
            theirs = metrics.f1_score(right, told, labels=seen, average="macro", zero_division=0)
        assert figures["macro_f1"] == pytest.approx(theirs, abs=1e-6)


def test_the_calibration_error_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        n_labels = 2 + case % 5
        targets_n = torch.randint(n_labels, (1 + case % 200,), generator=generator)
        logits_nl = torch.randn(len(targets_n), n_labels, generator=generator) * (0.1, 1, 5, 30)[case % 4]
        # torchmetrics has a bin of its own for what is wholly sure, and takes scores between 0 and 1 for probabilities.
        sure_nl = logits_nl.softmax(-1).clamp(max=1 - 2**-23)
        theirs = multiclass_calibration_error(sure_nl, targets_n, n_bins=BINS, num_classes=n_labels)
        ours = label_figures(logits_nl, targets_n)["calibration_error"]
        assert ours == pytest.approx(theirs.item(), abs=1e-6)
