import hashlib
import os
import pickle
import shutil

import numpy as np
import pytest

from llm.data import Corpus
from llm.data import corpus as module
from llm.data.corpus import token_dtype
from llm.errors import DataError
from llm.files import read_object, write_json


def flip(path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_windows_are_what_stands_in_the_stream(corpus) -> None:
    stream = corpus.train
    windows_nt = stream.read(np.array([0, 7, len(stream) - 10]), 10)
    assert windows_nt.dtype == np.int64
    assert np.array_equal(
        windows_nt, [stream.tokens[start : start + 10] for start in (0, 7, len(stream) - 10)]
    )


def test_past_the_end_is_an_error_or_filled(corpus) -> None:
    stream = corpus.train
    with pytest.raises(IndexError):
        stream.read(np.array([len(stream) - 9]), 10)
    with pytest.raises(IndexError):
        stream.read(np.array([0]), len(stream) + 1)
    window = stream.read_padded(np.array([len(stream) - 9]), 10, -100)[0]
    assert np.array_equal(window[:9], stream.tokens[-9:])
    assert window[9] == -100


def test_a_pickled_stream_maps_the_file_again(corpus) -> None:
    data = pickle.dumps(corpus.train)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).tokens, corpus.train.tokens)


def test_counts_agree_with_the_streams(corpus) -> None:
    for stream in (corpus.train, corpus.validation):
        assert len(stream) == stream.n_bytes + stream.n_documents
    assert corpus.bytes_per_token == pytest.approx(corpus.report["bytes_per_token"])
    assert corpus.vocab_size == corpus.tokenizer.vocab_size
    assert corpus.report["documents"] == 60


@pytest.mark.parametrize(("size", "name"), [(256, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_ids_are_kept_as_small_as_they_fit(size, name) -> None:
    assert token_dtype(size) == np.dtype(name)


def test_every_file_is_vouched_for(corpus) -> None:
    files = {
        path.relative_to(corpus.folder).as_posix() for path in corpus.folder.rglob("*") if path.is_file()
    }
    assert files - set(corpus.index["files"]) == {"index.json", ".verified.json"}


@pytest.mark.parametrize("name", ["train.tokens.bin", "validation.documents.bin", "report.json"])
def test_a_flipped_bit_is_found_and_named(corpus, name) -> None:
    path = corpus.folder / name
    flip(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=rf"{name} is damaged.*Delete .* and prepare the data again"):
        Corpus.open(corpus.folder)


def test_a_flip_behind_an_unchanged_time_is_found_by_force(corpus) -> None:
    path = corpus.folder / "train.tokens.bin"
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    Corpus.open(corpus.folder)
    with pytest.raises(DataError, match="is damaged"):
        Corpus.open(corpus.folder, verify=True)


def test_a_cut_or_missing_file_is_found_and_named(corpus) -> None:
    path = corpus.folder / "train.tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(
        DataError, match=r"train\.tokens\.bin has \d+ bytes instead of \d+.*prepare the data again"
    ):
        Corpus.open(corpus.folder)
    path.unlink()
    with pytest.raises(DataError, match=r"train\.tokens\.bin is missing"):
        Corpus.open(corpus.folder)


def test_a_second_open_hashes_nothing_and_a_copy_everything(corpus, tmp_path, monkeypatch) -> None:
    hashed = []
    monkeypatch.setattr(
        module, "sha256", lambda path: hashed.append(path) or corpus.index["files"][path.name]["sha256"]
    )
    Corpus.open(corpus.folder)
    assert not hashed
    shutil.copytree(corpus.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    monkeypatch.undo()
    assert Corpus.open(tmp_path / "copy").fingerprint == corpus.fingerprint


def test_another_tokenizer_is_refused(corpus) -> None:
    corpus.require_tokenizer(corpus.tokenizer.hash)
    with pytest.raises(DataError, match=r"made with another tokenizer.*Prepare the data with this tokenizer"):
        corpus.require_tokenizer("0" * 64)


def test_a_folder_that_is_no_corpus_is_refused(corpus, tmp_path) -> None:
    with pytest.raises(DataError, match=r"no prepared corpus"):
        Corpus.open(tmp_path)
    index = corpus.folder / "index.json"
    text = index.read_text()
    index.write_text(text.replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(DataError, match="another format version"):
        Corpus.open(corpus.folder)
    index.write_text(text[:50])
    with pytest.raises(DataError, match=r"index\.json is damaged"):
        Corpus.open(corpus.folder)


def vouch(folder, path) -> None:
    """Let the index say of a file what is so."""
    index = read_object(folder / "index.json")
    data = path.read_bytes()
    index["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_json(folder / "index.json", index)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # As addresses of Python's objects, what stands in the file would be followed.
        ("dtype", "|O"),
        ("dtype", "<u4"),
        ("vocab_size", None),
        ("vocab_size", 0),
        ("vocab_size", True),
        ("tokenizer_hash", 5),
        ("streams", {"train": {"bytes": 5}}),
        ("files", {}),
        ("files", [["train.tokens.bin", 5]]),
        ("files", {"../elsewhere": {"bytes": 1, "sha256": ""}}),
    ],
)
def test_an_index_that_no_preparation_wrote_is_refused(corpus, key, value) -> None:
    index = read_object(corpus.folder / "index.json")
    write_json(corpus.folder / "index.json", {**index, key: value})
    with pytest.raises(DataError, match=rf"index.json is damaged \(it has no good .*{key.rstrip('s')}"):
        Corpus.open(corpus.folder)


def test_ids_outside_the_vocabulary_are_refused(corpus) -> None:
    path = corpus.folder / "train.tokens.bin"
    tokens = np.fromfile(path, corpus.train.tokens.dtype)
    tokens[5] = corpus.vocab_size
    tokens.tofile(path)
    vouch(corpus.folder, path)
    with pytest.raises(DataError, match=rf"train.tokens.bin is damaged .*above {corpus.vocab_size - 1}"):
        Corpus.open(corpus.folder)


@pytest.mark.parametrize("starts", [[3, 2], [0, 1 << 40]])
def test_documents_out_of_order_are_refused(corpus, starts) -> None:
    path = corpus.folder / "validation.documents.bin"
    np.array(starts, "<u8").tofile(path)
    vouch(corpus.folder, path)
    with pytest.raises(DataError, match=r"validation\.documents\.bin is damaged .*not in order"):
        Corpus.open(corpus.folder)


def test_a_torn_id_is_refused(corpus) -> None:
    path = corpus.folder / "train.tokens.bin"
    path.write_bytes(path.read_bytes()[:-1])
    vouch(corpus.folder, path)
    with pytest.raises(DataError, match="no whole number of uint16"):
        Corpus.open(corpus.folder)
