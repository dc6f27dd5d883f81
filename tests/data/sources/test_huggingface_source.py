import json
import sys

import pytest

from llm.data import prepare
from llm.data.sources import HuggingFace
from llm.data.sources import huggingface as module
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec

datasets = pytest.importorskip("datasets")
TEXTS = [f"Text number {number}.\n" * (1 + number % 7) for number in range(60)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    module.load.cache_clear()


@pytest.fixture
def folder(write) -> str:
    """A dataset of two files."""
    rows = [json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS)]
    return str(write({"a.jsonl": "".join(rows[:35]), "b.jsonl": "".join(rows[35:])}, "set"))


def texts_of(source: HuggingFace, tmp_path, documents_of) -> list[str]:
    corpus = prepare(source, ByteSpec(), tmp_path / "shards", processes=1)
    return [document.decode() for document in documents_of(corpus, corpus.train)]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_local_folder_streamed_or_not(folder, tmp_path, documents_of, streaming) -> None:
    source = HuggingFace(folder, streaming=streaming, validation_share=0)
    assert texts_of(source, tmp_path, documents_of) == TEXTS
    assert source.corpus_name == "set"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_limit_and_a_second_look(folder, tmp_path, documents_of, streaming, monkeypatch) -> None:
    source = HuggingFace(folder, streaming=streaming, limit=45, validation_share=0)
    assert texts_of(source, tmp_path, documents_of) == TEXTS[:45]
    monkeypatch.setattr("llm.data.preparation.prepare.encode_piece", lambda *_: pytest.fail("made again"))
    module.load.cache_clear()
    assert texts_of(source, tmp_path, documents_of) == TEXTS[:45]


def test_rows_are_cut_into_pieces(folder, tmp_path, documents_of, monkeypatch) -> None:
    monkeypatch.setattr("llm.data.files.cutting.MIN_PIECE_BYTES", 300)
    source = HuggingFace(folder, validation_share=0)
    assert texts_of(source, tmp_path, documents_of) == TEXTS


def test_a_saved_dataset_and_a_slice(tmp_path, documents_of) -> None:
    saved = datasets.Dataset.from_dict({"text": TEXTS})
    saved.save_to_disk(tmp_path / "saved")
    source = HuggingFace(str(tmp_path / "saved"), validation_share=0)
    assert texts_of(source, tmp_path, documents_of) == TEXTS
    streamed = HuggingFace(str(tmp_path / "saved"), streaming=True, validation_share=0)
    assert texts_of(streamed, tmp_path, documents_of) == TEXTS


def test_a_slice_of_a_split(folder, tmp_path, documents_of) -> None:
    assert (
        texts_of(HuggingFace(folder, split="train[:10]", validation_share=0), tmp_path, documents_of)
        == TEXTS[:10]
    )


def test_changed_contents_are_another_corpus(folder, tmp_path) -> None:
    first = prepare(HuggingFace(folder, streaming=True), ByteSpec(), tmp_path / "shards", processes=1)
    with open(f"{folder}/b.jsonl", "a") as file:
        file.write('{"id": 60, "text": "more"}\n')
    module.load.cache_clear()
    assert (
        prepare(HuggingFace(folder, streaming=True), ByteSpec(), tmp_path / "shards", processes=1).folder
        != first.folder
    )


def test_a_missing_column_is_named_with_the_nearest(folder, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no field 'texts'.*only id, text.*data\.text=text"):
        prepare(HuggingFace(folder, text="texts"), ByteSpec(), tmp_path / "shards")


def test_a_column_that_is_no_text_is_refused(folder, tmp_path) -> None:
    with pytest.raises(DataError, match=r"row 0: the field 'id' \(data\.text\) holds int"):
        prepare(HuggingFace(folder, text="id"), ByteSpec(), tmp_path / "shards")


@pytest.mark.parametrize(
    ("settings", "message"), [({"split": "trian"}, "trian"), ({"path": "./nothing/there"}, "nothing")]
)
def test_what_does_not_exist_is_named(folder, tmp_path, settings, message) -> None:
    with pytest.raises(ConfigError, match=rf"data\.path=.*{message}.*can't be loaded"):
        prepare(HuggingFace(**{"path": folder} | settings), ByteSpec(), tmp_path / "shards")


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.limit=0"):
        HuggingFace("x", limit=0)


def test_the_missing_package_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[huggingface\]'"):
        prepare(HuggingFace("x"), ByteSpec(), tmp_path / "shards")
