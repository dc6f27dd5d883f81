"""Public sets by one override of a recipe: read from local folders of the `datasets` library with the hub's columns."""

import json

import pyarrow.parquet as parquet
import pytest

from llm import build
from llm.cli.compose import compose
from llm.data.documents import BETWEEN, LeftOut
from llm.data.documents.answers import Question
from llm.data.documents.bio import tags_of
from llm.data.documents.messages import conversations_of
from llm.data.documents.verbatim import VERBATIM
from llm.data.files.inputs import InputFiles
from llm.data.sources import ParquetFiles
from llm.data.sources import huggingface as module
from llm.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets")
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value  # noqa: E402

TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
TEXT = Value("string")
MESSAGES = List({"content": TEXT, "role": TEXT})
ANSWERS = {"text": List(TEXT), "answer_start": List(Value("int32"))}
PASSAGE = "Chopin was born in Żelazowa Wola in 1810."


def talk(*contents):
    return [
        {"content": content, "role": "assistant" if number % 2 else "user"}
        for number, content in enumerate(contents)
    ]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    module.load.cache_clear()


def saved(tmp_path, split, rows, features):
    """Rows as a data set of the library's own format."""
    columns = {name: [row[name] for row in rows] for name in features}
    DatasetDict({split: Dataset.from_dict(columns, Features(features))}).save_to_disk(tmp_path / "set")
    return tmp_path / "set"


def documents(words):
    config = compose("train", words).config
    plan = build.source(config["data"], config).plan(InputFiles())
    return [document for piece in plan.pieces for document in piece.documents(LeftOut())], plan


def kept(document):
    return document.data.rpartition(BETWEEN + VERBATIM)[2]


def test_sst2_has_its_labels_by_name_and_leaves_out_what_has_none(tmp_path):
    rows = [(0, "a gorgeous film ", 1), (1, "unflinchingly bleak ", 0), (2, "who knows ", -1)]
    features = {
        "idx": Value("int32"),
        "sentence": TEXT,
        "label": ClassLabel(names=["negative", "positive"]),
    }
    folder = saved(tmp_path, "train", [dict(zip(features, row, strict=True)) for row in rows], features)
    found, plan = documents(["experiment=packages", "data=sst2", f"data.path={folder}"])
    assert [one.sides for one in found if one.data] == [
        ["a gorgeous film ", "positive"],
        ["unflinchingly bleak ", "negative"],
    ]
    # A pair is never cut, and each is held out by its hash.
    assert plan.split.settings()["rule"] == "hash"


def test_conll2003_has_its_tags_by_name(tmp_path):
    features = {"id": TEXT, "tokens": List(TEXT), "ner_tags": List(ClassLabel(names=TAGS))}
    rows = [{"id": "0", "tokens": ["EU", "rejects", "German", "call"], "ner_tags": [3, 0, 7, 0]}]
    folder = saved(tmp_path, "train", rows, features)
    (found,), _ = documents(["experiment=token_kinds", "data=conll2003", f"data.path={folder}"])
    assert found.sides == ["EU rejects German call"]
    assert tags_of(kept(found)) == ["B-ORG", "O", "B-MISC", "O"]


def test_squad_keeps_the_questions_of_a_passage_together(tmp_path):
    features = {"id": TEXT, "title": TEXT, "context": TEXT, "question": TEXT, "answers": ANSWERS}
    rows = [
        {"id": "a", "title": "t", "context": PASSAGE, "question": question, "answers": answers}
        for question, answers in (
            ("Where?", {"text": ["Żelazowa Wola"], "answer_start": [19]}),
            ("Who died?", {"text": [], "answer_start": []}),
        )
    ]
    folder = saved(tmp_path, "train", rows, features)
    found, plan = documents(["experiment=signatures", "data=squad_v2", f"data.path={folder}"])
    questions = [Question.of(kept(one)) for one in found]
    assert [one.answers for one in questions] == [["Żelazowa Wola"], []]
    assert {one.passage for one in questions} == {PASSAGE}
    assert found[0].id == found[1].id
    assert plan.split.settings()["rule"] == "id"


def test_an_answer_that_is_not_where_it_says_names_its_row(tmp_path):
    features = {"context": TEXT, "question": TEXT, "answers": ANSWERS}
    answers = {"text": ["1822"], "answer_start": [0]}
    rows = [{"context": PASSAGE, "question": "When?", "answers": answers}]
    folder = saved(tmp_path, "train", rows, features)
    with pytest.raises(DataError, match=r"set row 0: .*'1822' doesn't stand at character 0 of the passage"):
        documents(["data=squad_v2", f"data.path={folder}"])


def test_cnn_dailymail_has_pairs(tmp_path):
    features = {"article": TEXT, "highlights": TEXT, "id": TEXT}
    rows = [{"article": "It rained. A lot.", "highlights": "Rain .", "id": "0"}]
    folder = saved(tmp_path, "train", rows, features)
    (found,), _ = documents(["experiment=docstrings", "data=cnn_dailymail", f"data.path={folder}"])
    assert found.sides == ["It rained. A lot.", "Rain ."]


def test_ultrachat_has_conversations(tmp_path):
    features = {"prompt": TEXT, "prompt_id": TEXT, "messages": MESSAGES}
    said = talk("Hi", "Hello", "Bye", "See you")
    rows = [{"prompt": "Hi", "prompt_id": "0", "messages": said}]
    folder = saved(tmp_path, "train_sft", rows, features)
    words = ["experiment=chat", "data=ultrachat", f"data.path={folder}", "init_from=runs/demo"]
    (found,), _ = documents(words)
    assert conversations_of(found) == [said]


def test_ultrafeedback_has_preferences(tmp_path):
    features = {"prompt": TEXT, "chosen": MESSAGES, "rejected": MESSAGES, "score_chosen": Value("float64")}
    row = {"prompt": "Hi", "chosen": talk("Hi", "Hello"), "rejected": talk("Hi", "Go"), "score_chosen": 8.0}
    folder = saved(tmp_path, "train_prefs", [row], features)
    words = ["experiment=dpo", "data=ultrafeedback", f"data.path={folder}", "init_from=runs/helper"]
    (found,), _ = documents(words)
    assert conversations_of(found) == [row["chosen"], row["rejected"]]
    with pytest.raises(ConfigError, match=r"no field 'refused'.*data\.rejected"):
        documents([*words, "data.rejected=refused"])


def test_parquet_reads_the_same_kinds(tmp_path):
    """The library's own Parquet of questions, and of pairs."""
    columns = {
        "context": [PASSAGE],
        "question": ["When?"],
        "answers": [{"text": ["1810"], "answer_start": [36]}],
    }
    Dataset.from_dict(columns).to_parquet(tmp_path / "a.parquet")
    assert "answers" in parquet.read_schema(tmp_path / "a.parquet").names
    for keys, wanted in (
        ({"text": "question", "label": "answers", "passage": "context"}, ["1810"]),
        ({"text": "question", "label": "context"}, None),
    ):
        plan = ParquetFiles([f"{tmp_path}/*.parquet"], validation_share=0, **keys).plan(InputFiles())
        ((found,),) = [list(piece.documents(LeftOut())) for piece in plan.pieces]
        if wanted is None:
            assert found.sides == ["When?", PASSAGE]
        else:
            assert json.loads(kept(found))["answers"] == wanted
