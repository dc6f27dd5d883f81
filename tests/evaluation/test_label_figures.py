"""How labels are told, beside scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import confusion_matrix

from llm.evaluation.classification import confusion, label_figures, reliability
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
def test_the_bins_hold_every_text_once(sure):
    bins = reliability(*told(sure=sure))
    assert sum(bin["texts"] for bin in bins) == 1000
    assert all(bin["least"] <= bin["confidence"] <= bin["to"] for bin in bins)


def test_scores_between_0_and_1_are_no_probabilities():
    figures = label_figures(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert figures["calibration_error"] == pytest.approx(1 - torch.tensor(1.0).sigmoid().item())


def test_a_model_that_is_wholly_sure_is_counted_in_the_last_bin():
    logits_nl = torch.tensor([[40.0, 0.0], [40.0, 0.0], [3.5, 0.0], [3.5, 0.0]])
    figures = label_figures(logits_nl, torch.tensor([0, 1, 0, 0]))
    sure = (2 + 2 * torch.tensor(3.5).sigmoid().item()) / 4
    assert figures["calibration_error"] == pytest.approx(sure - 3 / 4)


def test_a_text_is_the_same_whatever_a_tokenizer_keeps_of_it():
    assert text_id("A café, well-known!") == text_id("a cafe , well - known !")
    assert text_id("a cafe") != text_id("a cage")
