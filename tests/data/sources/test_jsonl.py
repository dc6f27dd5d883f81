import gzip
import json
import tracemalloc

import pytest

from llm.data import prepare
from llm.data.documents import LeftOut
from llm.data.files import cutting
from llm.data.sources import JsonLines, jsonl, record_files
from llm.data.sources.csv import Tables
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec


def lines(texts: list[str], field: str = "text") -> str:
    return "".join(
        json.dumps({"n": number, field: text}, ensure_ascii=False) + "\n" for number, text in enumerate(texts)
    )


def read_all(tmp_path, documents_of, paths, **settings) -> list[str]:
    corpus = prepare(JsonLines(paths, validation_share=0, **settings), ByteSpec(), tmp_path / "shards")
    return [document.decode() for document in documents_of(corpus, corpus.train)]


def test_a_line_is_a_document(write, tmp_path, documents_of) -> None:
    texts = ["first\nwith a line end", "sécond 😀", "third"]
    folder = write({"a.jsonl": lines(texts[:2]), "b.jsonl": "\n" + lines(texts[2:]).rstrip()})
    assert read_all(tmp_path, documents_of, [f"{folder}/*.jsonl"]) == texts


def test_another_field_and_gzip(write, tmp_path, documents_of) -> None:
    folder = write({"a.jsonl.gz": gzip.compress(lines(["one", "two"], "body").encode())})
    assert read_all(tmp_path, documents_of, f"{folder}/a.jsonl.gz", text="body") == ["one", "two"]


@pytest.mark.parametrize("size", [1, 30, 64, 1000])
def test_each_line_is_read_once_wherever_the_pieces_end(
    write, tmp_path, documents_of, monkeypatch, size
) -> None:
    monkeypatch.setattr(cutting, "MIN_PIECE_BYTES", size)
    texts = [f"text {number}" + "x" * (number % 50) for number in range(80)]
    folder = write({"a.jsonl": lines(texts)})
    assert read_all(tmp_path, documents_of, [f"{folder}/a.jsonl"]) == texts


def test_copies_and_empty_texts_are_dropped_and_counted(write, tmp_path, documents_of) -> None:
    folder = write({"a.jsonl": lines(["one", "two", "one", "", "two", "three"]) + '{"text": null}\n'})
    source = JsonLines([f"{folder}/a.jsonl"], validation_share=0)
    corpus = prepare(source, ByteSpec(), tmp_path / "shards")
    assert documents_of(corpus, corpus.train) == [b"one", b"two", b"three"]
    assert corpus.report["duplicates_dropped"] == 2
    assert corpus.report["skipped"] == {"empty": 2}


BROKEN = [
    ("{not json}", DataError, "this line is no JSON"),
    ("[1, 2]", DataError, "no JSON object but list"),
    ('{"text": 5}', DataError, r"'text' \(data\.text\) holds int"),
    ('{"text": "\\ud800"}', DataError, "lone surrogate at character 0"),
    (b'{"text": "\xff"}', DataError, "byte 45 of the file is not UTF-8"),
    (
        '{"txt": "a", "id": 1}',
        ConfigError,
        r"no field 'text' \(data\.text\), only txt, id\. Did you mean data\.text=txt\?",
    ),
]


@pytest.mark.parametrize(("line", "kind", "message"), BROKEN)
def test_a_broken_line_is_named_or_skipped(write, tmp_path, documents_of, line, kind, message) -> None:
    start = b'{"text": "one"}\n\n{"text": "two"}\n'
    broken = line if isinstance(line, bytes) else line.encode()
    folder = write({"a.jsonl": start + b"  " + broken + b"\n" + b'{"text": "three"}\n'})
    paths = [f"{folder}/a.jsonl"]
    with pytest.raises(kind, match=rf"a\.jsonl:4: .*{message}.*data\.on_bad_file=skip"):
        prepare(JsonLines(paths), ByteSpec(), tmp_path / "shards")
    assert read_all(tmp_path, documents_of, paths, on_bad_file="skip") == ["one", "two", "three"]


def test_a_cut_gzip_file_is_named(write, tmp_path) -> None:
    folder = write({"a.jsonl.gz": gzip.compress(lines([f"text {n}" for n in range(500)]).encode())[:-20]})
    with pytest.raises(DataError, match=r"a\.jsonl\.gz can't be read to its end"):
        prepare(JsonLines([f"{folder}/*"]), ByteSpec(), tmp_path / "shards")


@pytest.mark.parametrize("size", [1500, 5000])
def test_a_line_without_end_is_named_or_skipped(write, tmp_path, documents_of, monkeypatch, size) -> None:
    monkeypatch.setattr(jsonl, "LARGEST_LINE", 1 << 10)
    monkeypatch.setattr(record_files, "piece_bytes", lambda total: size)
    folder = write({"a.jsonl": lines(["one", "x" * 3000, "two", "y" * 1000])})
    paths = [f"{folder}/a.jsonl"]
    with pytest.raises(DataError, match=r"a\.jsonl:2: this line is longer than"):
        prepare(JsonLines(paths), ByteSpec(), tmp_path / "shards")
    assert read_all(tmp_path, documents_of, paths, on_bad_file="skip") == ["one", "two", "y" * 1000]


def unpacked(piece, left_out: LeftOut) -> list[str]:
    """The texts of a piece, read in a few megabytes of memory."""
    tracemalloc.start()
    try:
        return [document.text for document in piece.documents(left_out)]
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20


def test_a_bomb_takes_no_memory_without_end(write, monkeypatch) -> None:
    monkeypatch.setattr(jsonl, "LARGEST_LINE", 1 << 18)
    monkeypatch.setattr(record_files, "LARGEST_LINE", 1 << 18)
    bomb = b"x" * (20 << 20)
    packed = {
        "a.jsonl.gz": lines(["one"]).encode() + b'{"text": "' + bomb,
        "a.csv.gz": b'text\none\n"' + bomb,
    }
    folder = write({name: gzip.compress(data, 1) for name, data in packed.items()})
    left_out = LeftOut()
    (piece,) = JsonLines([], on_bad_file="skip").pieces(f"{folder}/a.jsonl.gz", 0, 1)
    assert unpacked(piece, left_out) == ["one"]
    assert left_out.counts == {"bad": 1}
    (piece,) = Tables([], on_bad_file="skip").pieces(f"{folder}/a.csv.gz", 0, 1)
    with pytest.raises(DataError, match=r"a\.csv.* has a line of more than"):
        unpacked(piece, left_out)


@pytest.mark.parametrize(
    ("content", "reasons"), [(lines(["", ""]), "none"), ("", "none"), ("{\n[\n", "2 bad")]
)
def test_nothing_but_empty_texts_is_an_error(write, tmp_path, content, reasons) -> None:
    folder = write({"a.jsonl": content})
    with pytest.raises(DataError, match=rf"The data has no text.*\({reasons}"):
        prepare(JsonLines([f"{folder}/*"], on_bad_file="skip"), ByteSpec(), tmp_path / "shards")


def test_few_lines_lose_their_tail(write, tmp_path, documents_of) -> None:
    texts = [f"text {number}\n" * 20 for number in range(10)]
    folder = write({"a.jsonl": lines(texts)})
    corpus = prepare(JsonLines([f"{folder}/*"], validation_share=0.25), ByteSpec(), tmp_path / "shards")
    both = documents_of(corpus, corpus.train) + documents_of(corpus, corpus.validation)
    assert b"".join(both).decode() == "".join(texts)
    assert corpus.validation.n_bytes == pytest.approx(0.25 * len("".join(texts)), abs=10)
