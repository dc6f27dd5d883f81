import lzma
import platform
from pathlib import Path

import pytest

from llm.data import prepare
from llm.data.documents import LeftOut
from llm.data.files.inputs import InputFiles
from llm.data.sources import StandardLibrary, TextFiles
from llm.data.sources.stdlib import stdlib_files, stdlib_folder
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec


def test_a_file_is_a_document(write, tmp_path, documents_of) -> None:
    texts = {f"{number}.txt": f"text {number}" for number in range(50)}
    folder = write(texts)
    corpus = prepare(TextFiles([f"{folder}/*.txt"]), ByteSpec(), tmp_path / "shards")
    found = documents_of(corpus, corpus.train) + documents_of(corpus, corpus.validation)
    assert sorted(found) == sorted(text.encode() for text in texts.values())
    assert corpus.validation.n_documents > 0


def test_one_file_is_split_at_its_tail(write, tmp_path, documents_of) -> None:
    text = "".join(f"line {number}\n" for number in range(3000))
    folder = write({"input.txt": text})
    corpus = prepare(
        TextFiles([f"{folder}/input.txt"], validation_share=0.1), ByteSpec(), tmp_path / "shards"
    )
    (train,), (held_out,) = documents_of(corpus, corpus.train), documents_of(corpus, corpus.validation)
    assert (train + held_out).decode() == text
    assert train.endswith(b"\n")
    assert len(held_out) == pytest.approx(len(text) / 10, abs=20)


def test_copies_and_empty_files_are_dropped_and_counted(write, tmp_path, documents_of) -> None:
    folder = write({"a.txt": "same", "b.txt": "same", "c.txt": "", "d.txt": "other"})
    corpus = prepare(TextFiles([f"{folder}/*.txt"], validation_share=0), ByteSpec(), tmp_path / "shards")
    assert documents_of(corpus, corpus.train) == [b"same", b"other"]
    assert (corpus.report["duplicates_dropped"], corpus.report["skipped"]) == (1, {"empty": 1})


def test_bad_files_stop_or_are_skipped(write, tmp_path, documents_of) -> None:
    folder = write(
        {"good.txt": "good", "photo.txt": b"\x89PNG\0\0", "latin.txt": "café noir".encode("latin-1")}
    )
    paths = [f"{folder}/*.txt"]
    with pytest.raises(DataError, match=r"latin\.txt: byte 3 \(0xe9\) is not UTF-8.*data\.on_bad_file=skip"):
        prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards")
    with pytest.raises(DataError, match=r"photo\.txt: byte 4 is NUL.*data\.on_bad_file=skip"):
        prepare(TextFiles([f"{folder}/photo.txt"]), ByteSpec(), tmp_path / "shards")
    source = TextFiles(paths, validation_share=0, on_bad_file="skip")
    corpus = prepare(source, ByteSpec(), tmp_path / "shards")
    assert documents_of(corpus, corpus.train) == [b"good"]
    assert corpus.report["skipped"] == {"bad": 2}


def test_files_without_text_are_an_error(write, tmp_path) -> None:
    folder = write({"a.txt": "", "b.txt": ""})
    with pytest.raises(DataError, match=r"None of 2 files has text \(2 empty\)"):
        prepare(TextFiles([f"{folder}/*.txt"]), ByteSpec(), tmp_path / "shards")


def test_a_file_that_changes_meanwhile_is_noticed(write, monkeypatch) -> None:
    monkeypatch.setattr("llm.data.files.cutting.MIN_PIECE_BYTES", 100)
    folder = write({"a.txt": "text\n" * 10, "long.txt": "text\n" * 90})
    plan = TextFiles([f"{folder}/*"]).plan(InputFiles())
    (folder / "a.txt").write_text("TEXT\n" * 10)
    (folder / "long.txt").write_text("text\n" * 89)
    for piece in plan.pieces:
        with pytest.raises(DataError, match=r"txt has changed since the preparation began"):
            list(piece.documents(LeftOut()))


def test_an_unknown_way_with_bad_files_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.on_bad_file=ignore.*error.*skip"):
        TextFiles(["x"], on_bad_file="ignore")  # type: ignore[arg-type]


def test_the_same_text_elsewhere_is_the_same_corpus(write, tmp_path) -> None:
    texts = {f"{number}.txt": f"text {number}" for number in range(5)}
    here, there = (write(texts, folder) for folder in ("here", "there"))
    first, second = (prepare(TextFiles([f"{f}/*"]), ByteSpec(), tmp_path / "shards") for f in (here, there))
    assert first.folder == second.folder
    (there / "0.txt").write_text("text X")
    assert prepare(TextFiles([f"{there}/*"]), ByteSpec(), tmp_path / "shards").folder != first.folder


def is_3_11_7() -> bool:
    return platform.python_implementation() == "CPython" and platform.python_version() == "3.11.7"


@pytest.fixture(scope="module")
def stdlib_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stdlib")


def test_the_standard_library_leaves_out_what_is_not_its_own() -> None:
    folders = {part for name, _ in stdlib_files() for part in Path(name).parts[:-1]}
    assert not folders & {
        "site-packages",
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "__pycache__",
        "pydoc_data",
        "encodings",
    }
    assert {"asyncio", "json", "email"} <= folders
    assert all(path.is_relative_to(stdlib_folder()) for _, path in stdlib_files())


@pytest.mark.skipif(not is_3_11_7(), reason="the numbers are of CPython 3.11.7")
def test_the_standard_library_is_the_one_that_the_design_names(stdlib_shards, documents_of) -> None:
    assert len(stdlib_files()) == 476
    assert sum(path.stat().st_size for _, path in stdlib_files()) == pytest.approx(8.89e6, abs=5e3)
    corpus = prepare(StandardLibrary(), ByteSpec(), stdlib_shards)
    held_out = documents_of(corpus, corpus.validation)
    joined = b"".join(held_out)
    assert len(held_out) == 27
    assert len(joined) == corpus.validation.n_bytes == pytest.approx(0.51e6, abs=5e3)
    assert 8 * len(lzma.compress(joined, preset=9)) / len(joined) == pytest.approx(1.68, abs=0.005)


def test_the_standard_library_is_held_out_whole_where_asked(stdlib_shards) -> None:
    corpus = prepare(StandardLibrary(validation_share=1), ByteSpec(), stdlib_shards)
    assert len(corpus.train) == 0
    assert corpus.validation.n_documents > 400
    assert len(corpus.report["samples"]) == 3
