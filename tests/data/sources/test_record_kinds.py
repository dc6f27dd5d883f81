"""What a record is follows from its fields: questions and preferences in lines of JSON and in tables, as in their own formats."""

import csv
import json

import pytest

from llm.data import prepare
from llm.data.documents import LeftOut
from llm.data.documents.split import IdSplit
from llm.data.files.inputs import InputFiles
from llm.data.sources import JsonLines, PreferenceLines, Squad, Tables
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec

PASSAGE = "Chopin was born in Żelazowa Wola, in 1810."
# The answer of each question and where it starts; None where there is none.
ASKED = {"Where?": ("Żelazowa Wola", 19), "When?": ("1810", 37), "Who died?": None}
QUESTION = {"text": "question", "label": "answer", "passage": "context"}
PREFERENCE = {"text": "prompt", "label": "chosen", "rejected": "rejected"}


def lists(found):
    return {"text": [found[0]] if found else [], "answer_start": [found[1]] if found else []}


def objects(found):
    return [{"text": found[0], "answer_start": found[1]}] if found else []


def text(found):
    return found[0] if found else ""


def documents(source):
    return [one for piece in source.plan(InputFiles()).pieces for one in piece.documents(LeftOut())]


def json_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def table(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def squad(path):
    asked = [
        {"id": str(n), "question": question, "answers": objects(found), "is_impossible": found is None}
        for n, (question, found) in enumerate(ASKED.items())
    ]
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": PASSAGE, "qas": asked}]}]}))
    return Squad(str(path))


def rows_of(form):
    return [
        {"question": question, "context": PASSAGE, "answer": form(found)} for question, found in ASKED.items()
    ]


@pytest.mark.parametrize("form", [lists, objects, text])
def test_lines_with_a_passage_are_the_questions_of_squads_format(tmp_path, form):
    source = JsonLines(json_lines(tmp_path / "a.jsonl", rows_of(form)), **QUESTION)
    assert documents(source) == documents(squad(tmp_path / "a.json"))
    assert isinstance(source.plan(InputFiles()).split, IdSplit)


def test_rows_with_a_passage_are_the_questions_of_squads_format(tmp_path):
    source = Tables(table(tmp_path / "a.csv", rows_of(text)), **QUESTION)
    assert documents(source) == documents(squad(tmp_path / "a.json"))
    assert isinstance(source.plan(InputFiles()).split, IdSplit)


def test_rows_with_a_worse_answer_are_preferences(tmp_path):
    rows = [{"prompt": f"Say {n},\nloud.", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(3)]
    theirs = documents(PreferenceLines(json_lines(tmp_path / "a.jsonl", rows)))
    for source in (
        Tables(table(tmp_path / "a.csv", rows), **PREFERENCE),
        JsonLines(f"{tmp_path}/a.jsonl", **PREFERENCE),
    ):
        assert [one.data for one in documents(source)] == [one.data for one in theirs]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("1822", "its answer '1822' is nowhere in the passage"),
        ({"text": ["1810"], "answer_start": [3]}, "'1810' doesn't stand at character 3"),
        ({"text": ["1810"]}, r"'answer' \(data.label\) must hold two lists"),
        (["1810"], r"'answer' \(data.label\) must hold two lists"),
        (1810, r"'answer' \(data.label\) must hold two lists"),
    ],
)
def test_answers_that_are_none_are_told_with_their_line_or_counted(tmp_path, answer, message):
    rows = rows_of(text)
    rows[1]["answer"] = answer
    path = json_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=rf"a\.jsonl:2: .*{message}"):
        prepare(JsonLines(path, **QUESTION), ByteSpec(), tmp_path / "shards")
    source = JsonLines(path, **QUESTION, validation_share=0, on_bad_file="skip")
    report = prepare(source, ByteSpec(), tmp_path / "shards").report
    assert (report["documents"], report["skipped"]) == (2, {"bad": 1})


def test_an_answer_of_a_table_that_is_nowhere_names_its_row(tmp_path):
    rows = rows_of(text)
    rows[2]["answer"] = "1822"
    with pytest.raises(DataError, match=r"a\.csv:4: its answer '1822' is nowhere in the passage"):
        documents(Tables(table(tmp_path / "a.csv", rows), **QUESTION))


def test_a_column_that_is_not_there_is_named(tmp_path):
    path = table(tmp_path / "a.csv", rows_of(text))
    for key, near in (("passage", "contex"), ("label", "answers"), ("text", "questions")):
        with pytest.raises(ConfigError, match=rf"there is no field '{near}' \(data\.{key}\)"):
            documents(Tables(path, **{**QUESTION, key: near}))
