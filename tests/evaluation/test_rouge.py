"""ROUGE as rouge-score and torchmetrics count it, beside that of a copy of the beginning."""

import random

import pytest
from torchmetrics.functional.text.rouge import rouge_score

from llm.evaluation.pairs import ROUGE, rouge_result

WORDS = ["the", "cats", "cat", "sat", "sitting", "on", "mats.", "A", "quickly", "Run", "running", "3.5"]


def test_figures_are_those_of_another_library():
    choose = random.Random(0)
    for _ in range(100):
        texts = [
            [" ".join(choose.choices(WORDS, k=choose.randint(1, 9))) for _ in range(10)] for _ in range(2)
        ]
        figures = rouge_result(["x"] * 10, *texts).metrics
        theirs = rouge_score(*texts, use_stemmer=True, rouge_keys=ROUGE)
        for kind in ROUGE:
            assert figures[kind] == pytest.approx(float(theirs[f"{kind}_fmeasure"]), abs=1e-5)


def test_the_copy_is_the_first_sentence_or_line():
    sources, targets = ["A cat sat. It ran.", "def f():\n    pass"], ["A cat sat.", "def f"]
    figures = rouge_result(sources, ["", ""], targets).metrics
    assert figures["copy_rougeL"] == 1.0
    assert figures["rougeL"] == 0.0
