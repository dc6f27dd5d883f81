"""Tables: cells with commas and line ends, labels of any kind, and errors that say where."""

import csv
import gzip
import re

import pytest

from llm.data import prepare
from llm.data.collators.pairs import Pairs
from llm.data.documents import LeftOut
from llm.data.documents.bio import tagged
from llm.data.files.inputs import InputFiles
from llm.data.sources import Tables
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec

TOKENIZER = ByteSpec().build()
ROWS = [(f'Said "{n}",\nthen left.', n % 5) for n in range(60)]


def table(path, rows=ROWS, delimiter=",", opened=open):
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("review", "stars"), *rows])
    return path


def pairs_of(corpus):
    for stream in (corpus.train, corpus.validation):
        view = Pairs(stream, 256, 0, TOKENIZER.end_of_text)
        for number in range(view.size):
            yield tuple(TOKENIZER.decode(side.tolist()) for side in view.pair(number))


@pytest.mark.parametrize(
    ("name", "delimiter", "opened"),
    [("a.csv", ",", open), ("a.tsv", "\t", open), ("a.csv.gz", ",", gzip.open)],
)
def test_rows_are_pairs(tmp_path, name, delimiter, opened):
    path = table(tmp_path / name, delimiter=delimiter, opened=opened)
    corpus = prepare(Tables(str(path), text="review", label="stars"), ByteSpec(), tmp_path / "shards")
    assert sorted(pairs_of(corpus)) == sorted((text, str(stars)) for text, stars in ROWS)


def test_without_a_label_rows_are_texts(tmp_path, documents_of):
    path = table(tmp_path / "a.csv")
    corpus = prepare(Tables(str(path), text="review"), ByteSpec(), tmp_path / "shards")
    found = [*documents_of(corpus, corpus.train), *documents_of(corpus, corpus.validation)]
    assert sorted(found) == sorted(text.encode() for text, _ in ROWS)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (
            "review,stars\na,1\nb\n",
            DataError,
            r"a\.csv:3: the row has another number of cells than the 2 columns",
        ),
        ("review,stars\na,1,2\n", DataError, r"a\.csv:2: the row has another number of cells"),
        (
            "review,star\na,1\n",
            ConfigError,
            "there is no field 'stars' \\(data.label\\), only review, star. Did you mean data.label=star",
        ),
        ('review,stars\n"a,1\n', DataError, "can't be read to its end"),
        (b"review,stars\n\xff,1\n", DataError, "is not UTF-8"),
        ("review,stars\n", DataError, "no text"),
    ],
)
def test_what_is_broken_is_named(tmp_path, content, error, message):
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message):
        prepare(Tables(f"{tmp_path}/a.csv", text="review", label="stars"), ByteSpec(), tmp_path / "shards")


def test_broken_rows_can_be_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("review,stars\na,1\nb\nc,2\nd,1\n")
    source = Tables(f"{tmp_path}/a.csv", text="review", label="stars", on_bad_file="skip")
    corpus = prepare(source, ByteSpec(), tmp_path / "shards")
    assert sorted(pairs_of(corpus)) == [("a", "1"), ("c", "2"), ("d", "1")]


WORDS = [
    ("1", "Ann", "B-PER"),
    ("", "met", "O"),
    ("", 'the, "boss"', "O"),
    ("2", "Bob", "B-PER"),
    ("3", "Go", "O"),
]


def words_table(path, rows, header=("id", "word", "tag")):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return Tables(str(path), text="word", label="tag", sentence="id", validation_share=0)


@pytest.mark.parametrize("named", ["at the first word", "at each word"])
def test_rows_are_words_of_sentences(tmp_path, named):
    full = [(number, *rest) for number, (_, *rest) in zip("11123", WORDS, strict=True)]
    rows = WORDS if named == "at the first word" else full
    source = words_table(tmp_path / "a.csv", rows)
    assert source.corpus_name == "tagged"
    documents = [one for piece in source.plan(InputFiles()).pieces for one in piece.documents(LeftOut())]
    wanted = [
        tagged(["Ann", "met", 'the, "boss"'], ["B-PER", "O", "O"]),
        tagged(["Bob"], ["B-PER"]),
        tagged(["Go"], ["O"]),
    ]
    assert [one.data for one in documents] == wanted
    assert [one.id.rpartition(", ")[2] for one in documents] == ["line 2", "line 5", "line 6"]


def test_a_sentence_with_a_broken_row_is_named_or_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("id,word,tag\n1,a,O\n1,b\n2,c,O\n")
    keys = {"text": "word", "label": "tag", "sentence": "id"}
    with pytest.raises(DataError, match=r"a\.csv:2: the row has another number of cells"):
        prepare(Tables(f"{tmp_path}/a.csv", **keys), ByteSpec(), tmp_path / "shards")
    left_out = LeftOut()
    (piece,) = Tables(f"{tmp_path}/a.csv", on_bad_file="skip", **keys).pieces(f"{tmp_path}/a.csv", 0, 0)
    assert [one.data for one in piece.documents(left_out)] == [tagged(["c"], ["O"])]
    assert left_out.counts["bad"] == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sentence": "ids"}, "Did you mean data.sentence=id?"),
        ({"text": "words"}, "Did you mean data.text=word?"),
        ({"label": "tags"}, "Did you mean data.label=tag?"),
        ({"label": None}, "data.label names their tags"),
    ],
)
def test_a_column_that_is_not_there_is_named(tmp_path, keys, message):
    words_table(tmp_path / "a.csv", WORDS)
    with pytest.raises(ConfigError, match=re.escape(message)):
        prepare(
            Tables(f"{tmp_path}/a.csv", **{"text": "word", "label": "tag", "sentence": "id", **keys}),
            ByteSpec(),
            tmp_path / "shards",
        )
