"""How labels are told, beside scikit-learn and torchmetrics."""

import pytest
import torch
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import multiclass_calibration_error

from llm.evaluation.classification import BINS, confusion, label_figures, reliability
from llm.evaluation.examples import text_id


def told(n=1000, labels=4, seed=0, sure=1.5):
    generator = torch.Generator().manual_seed(seed)
    targets_n = torch.randint(labels, (n,), generator=generator)
    logits_nl = sure * torch.randn(n, labels, generator=generator)
    return logits_nl + torch.nn.functional.one_hot(targets_n, labels), targets_n


@pytest.mark.parametrize("labels", [2, 4, 9])
def test_the_confusion_matrix_is_scikit_learns(labels):
    logits_nl, targets_n = told(labels=labels)
    theirs = confusion_matrix(targets_n, logits_nl.argmax(-1), labels=range(labels)).tolist()
    assert confusion(logits_nl.argmax(-1), targets_n, labels) == theirs


def test_a_label_that_no_text_has_keeps_its_row():
    assert confusion(torch.tensor([0, 0]), torch.tensor([0, 2]), 3) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("sure", [0.1, 1.5, 4.0])
def test_the_bins_give_torchmetrics_calibration_error(sure):
    logits_nl, targets_n = told(sure=sure)
    bins = reliability(logits_nl, targets_n)
    assert sum(bin["texts"] for bin in bins) == 1000
    assert all(bin["least"] <= bin["confidence"] <= bin["to"] for bin in bins)
    error = sum(bin["texts"] * abs(bin["confidence"] - bin["accuracy"]) for bin in bins) / 1000
    theirs = multiclass_calibration_error(logits_nl, targets_n, n_bins=BINS, num_classes=4).item()
    assert error == pytest.approx(theirs, abs=1e-6)
    assert label_figures(logits_nl, targets_n)["calibration_error"] == pytest.approx(theirs)


def test_a_text_is_the_same_whatever_a_tokenizer_keeps_of_it():
    assert text_id("A café, well-known!") == text_id("a cafe , well - known !")
    assert text_id("a cafe") != text_id("a cage")
