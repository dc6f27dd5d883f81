"""Questions on passages: answers found where they are said to be, scored as SQuAD's script does, windows that hold them."""

import json
import random

import numpy as np
import pytest
import torch
from torchmetrics.functional.text import squad

from llm.data import prepare
from llm.data.collators.base import Setting
from llm.data.collators.questions import AnswerCollator
from llm.data.collators.words import NOTHING
from llm.data.documents.answers import Question, exact_match, normalized, overlap_f1, stretch, units
from llm.data.sampling.windows import IGNORED
from llm.data.sources import Squad
from llm.errors import DataError
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec

SPEC = ByteSpec()
TOKENIZER = SPEC.build()
END = TOKENIZER.end_of_text
PASSAGE = "Élise was born in 1822, in the town of Aix-en-Provence."


def question(text="When?", answer="1822", start=18, **keys):
    return {"id": f"q {text}", "question": text, "answers": [{"text": answer, "answer_start": start}], **keys}


def squad_file(path, *passages):
    data = [{"title": "t", "paragraphs": [{"context": text, "qas": qas} for text, qas in passages]}]
    path.write_text(json.dumps({"version": "v2.0", "data": data}))
    return str(path)


def prepared(tmp_path, *passages, share=0.0, **keys):
    path = squad_file(tmp_path / "a.json", *passages)
    return prepare(Squad(path, validation_share=share, **keys), SPEC, tmp_path / "shards")


def collator(architecture="encoder", context_length=128, **keys):
    config = ModelConfig(
        architecture=architecture, context_length=context_length, labels=("start", "end"), labelled="answer"
    )
    return AnswerCollator(Setting(TOKENIZER, 0, config), **keys)


def view(corpus, collate, length=128):
    return collate.samples(corpus.train, length, 0)


def test_a_question_keeps_its_passage_and_where_its_answer_stands(tmp_path):
    qas = [question(), question("Why?", is_impossible=True), question("Where?", "Aix-en-Provence", 39)]
    found = view(prepared(tmp_path, (PASSAGE, qas)), collator())
    kept = {found.shown(number, TOKENIZER): found.question(number) for number in range(3)}
    assert set(kept) == {f"{text}\n{PASSAGE}" for text in ("When?", "Why?", "Where?")}
    when, why, where = (kept[f"{text}\n{PASSAGE}"] for text in ("When?", "Why?", "Where?"))
    spans = units(PASSAGE)
    assert stretch(PASSAGE, spans, when.first, when.last) == "1822"
    assert stretch(PASSAGE, spans, where.first, where.last) == "Aix-en-Provence"
    assert why == Question(PASSAGE, [], -1, -1)


def test_a_passage_is_its_units():
    assert "".join(PASSAGE[start:end] for start, end in units(PASSAGE)) == PASSAGE


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            question(start=17),
            "question q When\\?: its answer '1822' doesn't stand at character 17 .* starts at 18",
        ),
        (question(answer="1823"), "it is nowhere in the passage"),
        (question(answer=""), "its answer '' at 18 is no text"),
        (question(start=-1), "its answer '1822' at -1 is no text"),
        (question(" "), "its question or its passage is empty"),
        ({"id": "q", "question": "Why?"}, "it has no question and answers"),
    ],
)
def test_what_is_wrong_with_a_question_is_told_or_counted(tmp_path, asked, message):
    with pytest.raises(
        DataError, match=rf"a\.json, {message}" if message.startswith("question") else message
    ):
        prepared(tmp_path, (PASSAGE, [question(), asked]))
    report = prepared(tmp_path, (PASSAGE, [question(), asked]), on_bad_file="skip").report
    assert report["skipped"] == {"bad": 1}
    assert report["documents"] == 1


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match="no file in SQuAD's format"):
        prepare(Squad(str(tmp_path / "a.json")), SPEC, tmp_path / "shards")


def test_questions_on_a_passage_are_held_out_together(tmp_path):
    passages = [
        (f"{n} {PASSAGE}", [question(f"{k}?", "1822", 19 + len(str(n)))]) for n in range(30) for k in (0, 1)
    ]
    corpus = prepared(tmp_path, *passages, share=0.3)
    sides = [
        {collator().samples(stream, 128, 0).question(number).passage for number in range(stream.n_documents)}
        for stream in (corpus.train, corpus.validation)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 30
    assert 0 < len(sides[1]) < 20


def test_an_answer_is_a_target_by_its_edges(tmp_path):
    corpus = prepared(tmp_path, (PASSAGE, [question("Where?", "Aix-en-Provence", 39)]))
    collate = collator()
    batch = collate([*view(corpus, collate).in_order(np.array([0])), NOTHING], np.arange(2))
    spans = units(PASSAGE)
    edges = {int(place): int(batch.targets_bk[0, place]) for place in batch.targets_bk[0].clamp(0).nonzero()}
    first = [PASSAGE[start:end].strip() for start, end in spans].index("Aix")
    assert edges == {first + 1: 1, first + 5: 2}
    at = batch.positions_bk[0, first + 1]
    assert TOKENIZER.decode(batch.tokens_bt[0, at : at + 4].tolist()) == " Aix"
    assert (batch.targets_bk[1] == IGNORED).all()


@pytest.mark.parametrize(("architecture", "place"), [("encoder", 0), ("decoder", 7 + len(PASSAGE.encode()))])
def test_no_answer_is_the_text_as_a_whole(tmp_path, architecture, place):
    corpus = prepared(tmp_path, (PASSAGE, [question("Why ?", is_impossible=True)]))
    collate = collator(architecture)
    batch = collate(view(corpus, collate).in_order(np.array([0])), np.arange(1))
    assert batch.targets_bk[0, 0] == 3
    assert batch.positions_bk[0, 0] == place


def test_the_windows_of_a_long_passage_hold_the_answer_once_at_least(tmp_path):
    corpus = prepared(tmp_path, (PASSAGE, [question()]))
    collate = collator(context_length=32, stride=8)
    windows = collate.samples(corpus.train, 32, 0)
    assert windows.note == "1 of 1 texts are longer than model.context_length=32 and are read in windows."
    batch = collate(windows.in_order(np.arange(windows.size)), np.arange(windows.size))
    # Each row has a start and an end: those of the answer, or of none.
    assert (batch.targets_bk.clamp(0).sum(1) == 3).all()
    assert 0 < int((batch.targets_bk[:, 0] == 0).sum()) < windows.size
    assert (batch.tokens_bt[:, :7] == torch.tensor([END, *TOKENIZER.encode("When?"), END])).all()


def test_segments_part_question_and_passage(tmp_path):
    corpus = prepared(tmp_path, (PASSAGE, [question()]))
    config = ModelConfig(
        architecture="encoder", context_length=128, labels=("start", "end"), labelled="answer", n_segments=2
    )
    collate = AnswerCollator(Setting(TOKENIZER, 0, config))
    batch = collate(view(corpus, collate).in_order(np.array([0])), np.arange(1))
    assert batch.segments_bt[0, :9].tolist() == [0] * 7 + [1] * 2


WORDS = ["the", "a", "an", "Cat", "cat", "dog's", "dog", ",", "!", "1822", "in-town", "Ünal", "-"]


def test_scores_are_those_of_the_script():
    choose = random.Random(0)
    compared = 0
    while compared < 1000:
        told, *right = (
            " ".join(choose.choices(WORDS, k=choose.randint(1, 5))) for _ in range(choose.randint(2, 4))
        )
        # What is nothing once it is normalized is the next test's: the first script knew no questions without answers.
        if not all(map(normalized, [told, *right])):
            continue
        theirs = squad(
            {"prediction_text": told, "id": "1"},
            {"answers": {"answer_start": [0] * len(right), "text": right}, "id": "1"},
        )
        assert 100 * exact_match(told, right) == pytest.approx(float(theirs["exact_match"]))
        assert 100 * overlap_f1(told, right) == pytest.approx(float(theirs["f1"]), rel=1e-5)
        compared += 1


@pytest.mark.parametrize(
    ("told", "right", "score"),
    [
        ("", [], 1),
        ("the", [], 1),
        ("cat", [], 0),
        ("", ["cat"], 0),
        ("", ["the"], 1),
        ("a", ["the", "cat"], 0),
    ],
)
def test_no_answer_is_right_where_there_is_none(told, right, score):
    assert exact_match(told, right) == overlap_f1(told, right) == score
