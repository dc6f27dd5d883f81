"""Tags that go together, and figures that are seqeval's."""

import itertools
import random
import warnings

import numpy as np
import pytest
import torch
from seqeval import metrics as seqeval

from llm.data.documents.bio import entities
from llm.evaluation.tagging import tag_result
from llm.generation.tagging import best_tags

TAGS = ("O", "B-person", "I-person", "B-place", "I-place")


def cases():
    choose = random.Random(1)
    for _ in range(1000):
        lengths = [choose.randint(1, 12) for _ in range(choose.randint(1, 6))]
        wanted = [choose.choices(TAGS, k=length) for length in lengths]
        told = [[tag if choose.random() < 0.7 else choose.choice(TAGS) for tag in tags] for tags in wanted]
        yield wanted, told


def figures_of_tags(wanted, told, labels=TAGS):
    return tag_result(labels, ["text"] * len(wanted), wanted, told).metrics


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_figures_are_those_of_seqeval():
    for wanted, told in cases():
        figures = figures_of_tags(wanted, told)
        theirs = (seqeval.precision_score, seqeval.recall_score, seqeval.f1_score)
        assert [figures[name] for name in ("precision", "recall", "f1")] == pytest.approx(
            [score(wanted, told) for score in theirs], abs=1e-12
        )
        report = seqeval.classification_report(wanted, told, output_dict=True)
        for kind in {entity.kind for tags in wanted for entity in entities(tags)}:
            assert figures[f"f1_{kind}"] == pytest.approx(report[kind]["f1-score"], abs=1e-12)


def test_accuracy_is_that_of_seqeval():
    for wanted, told in itertools.islice(cases(), 100):
        assert figures_of_tags(wanted, told)["accuracy"] == pytest.approx(
            seqeval.accuracy_score(wanted, told)
        )


def test_the_figures_of_sentences_are_what_their_scores_add_up_to():
    wanted, told = next(cases())
    found = tag_result(TAGS, ["a"] * len(wanted), wanted, told, [1.5] * len(wanted))
    assert found.examples == len(found.rows) == len(wanted)
    assert found.metrics["loss"] == pytest.approx(1.5 * len(wanted) / sum(map(len, wanted)))
    assert [row["prediction"] for row in found.rows] == told
    both = sum(row["scores"]["precision"][0] for row in found.rows)
    assert found.metrics["precision"] == both / sum(len(entities(tags)) for tags in told)


def test_tags_that_are_no_bio_have_no_entities():
    assert figures_of_tags([["DT", "NN", "NN"]], [["DT", "NN", "DT"]], ("DT", "NN")) == {
        "accuracy": pytest.approx(2 / 3),
        "majority": pytest.approx(2 / 3),
    }


def may_be(tags):
    return all(
        not tag.startswith("I-") or before[2:] == tag[2:] for before, tag in itertools.pairwise(["O", *tags])
    )


def test_the_tags_are_the_likeliest_of_all_that_go_together():
    for seed in range(50):
        scores = torch.randn(4, len(TAGS), generator=torch.Generator().manual_seed(seed))
        logs = scores.log_softmax(-1).double().numpy()
        numbers = range(len(TAGS))
        ways = [way for way in itertools.product(numbers, repeat=4) if may_be([TAGS[n] for n in way])]
        best = max(ways, key=lambda way: logs[np.arange(4), list(way)].sum())
        assert best_tags(scores, TAGS) == [TAGS[number] for number in best]


def test_other_labels_are_taken_each_by_itself():
    assert best_tags(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), ("DT", "NN")) == ["NN", "DT"]
