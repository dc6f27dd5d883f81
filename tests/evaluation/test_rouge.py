"""ROUGE as rouge-score and torchmetrics count it, beside that of a copy of the beginning; chrF and matches."""

import random

import pytest
from sacrebleu.metrics import CHRF
from torchmetrics.functional.text.rouge import rouge_score

from llm.evaluation.pairs import ROUGE, first_sentence, is_same, summary_result

WORDS = ["the", "cats", "cat", "sat", "sitting", "on", "mats.", "A", "quickly", "Run", "running", "3.5"]


def test_figures_are_those_of_another_library():
    choose = random.Random(0)
    for _ in range(100):
        texts = [
            [" ".join(choose.choices(WORDS, k=choose.randint(1, 9))) for _ in range(10)] for _ in range(2)
        ]
        figures = summary_result(["x"] * 10, *texts).metrics
        theirs = rouge_score(*texts, use_stemmer=True, rouge_keys=ROUGE)
        for kind in ROUGE:
            assert figures[kind] == pytest.approx(float(theirs[f"{kind}_fmeasure"]), abs=1e-5)


def test_the_copy_is_the_first_sentence_or_line():
    sources, targets = ["A cat sat. It ran.", "def f():\n    pass"], ["A cat sat.", "def f"]
    figures = summary_result(sources, ["", ""], targets).metrics
    assert figures["copy_rougeL"] == 1.0
    assert figures["rougeL"] == 0.0


@pytest.mark.parametrize(
    ("text", "target", "same"),
    [
        ("Return the sum.", "return the  sum", True),
        ("Return\n    the sum!", " Return the sum...", True),
        ("RETURN THE SUM", "Return the sum.", True),
        ("Return a sum.", "Return the sum.", False),
        ("Return the sum: x.", "Return the sum x.", False),
        ("Returnthe sum.", "Return the sum.", False),
        ("", "Return the sum.", False),
        ("", "...", False),
    ],
)
def test_case_white_space_and_last_marks_make_no_difference(text, target, same):
    assert is_same(text, target) == same


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Return it. Or not.", "Return it."),
        ("Return it\nOr not.", "Return it"),
        ("Return x.y of it", "Return x.y of it"),
        ("  Why? Because.", "Why?"),
        ("", ""),
    ],
)
def test_a_first_sentence_ends_at_a_mark_or_with_its_line(text, sentence):
    assert first_sentence(text) == sentence


def test_matches_are_counted_whole_and_by_first_sentences():
    targets = ["Open a file.", "Close it. Twice is fine.", "Read a line.", "Seek."]
    written = ["open a  file", "Close it. Never twice.", "Read lines.", "seek. Then read."]
    found = summary_result(["x"] * 4, written, targets)
    assert found.metrics["match"] == 1 / 4
    assert found.metrics["first_match"] == 3 / 4
    assert [row["scores"]["first_match"][0] for row in found.rows] == [1, 1, 0, 1]
    assert found.metrics["chrf"] == CHRF().corpus_score(written, [targets]).score
