import json
import random

import pytest

from llm.data import prepare
from llm.data.preparation.progress import Bar
from llm.data.preparation.report import render
from llm.data.sources import TextFiles
from llm.tokenizer import ByteSpec, SentencePieceSpec
from tests.browsing import PHONE, faults, width_beyond


def test_the_report_counts_what_was_found(corpus) -> None:
    report = corpus.report
    assert (
        report["documents"]
        == report["streams"]["train"]["documents"] + report["streams"]["validation"]["documents"]
    )
    assert report["tokens"] == report["bytes"] + report["documents"]
    assert report["validation_share"] == pytest.approx(corpus.validation.n_bytes / report["bytes"])
    assert [document["bytes"] for document in report["longest_documents"]] == [
        79 * 13 - offset * 13 for offset in range(5)
    ]
    assert report["samples"][0].startswith("Document ")


def test_the_report_is_deterministic_json(corpus, tmp_path) -> None:
    text = (corpus.folder / "report.json").read_text()
    assert json.loads(text) == corpus.report
    assert "Document" in render(corpus.report)
    assert "60 documents" in render(corpus.report)


@pytest.mark.parametrize("spec", [ByteSpec(), SentencePieceSpec("bpe", vocab_size=320)])
def test_characters_spelled_in_bytes_count_as_unknown(write, tmp_path, spec) -> None:
    words = ["".join(random.Random(number).choices("abcdefghijklmnop", k=5)) for number in range(400)]
    folder = write({"a.txt": " ".join(words * 20), "b.txt": "\u4e2d\u6587"})
    report = prepare(TextFiles([f"{folder}/*"], validation_share=0), spec, tmp_path / "shards").report
    assert report["unknown_share"] == pytest.approx(6 / report["tokens"])


def test_the_longest_documents_are_named_once(write, tmp_path) -> None:
    folder = write({f"{number}.txt": "x" * 100 * number for number in range(1, 9)})
    report = prepare(TextFiles([f"{folder}/*"], validation_share=0), ByteSpec(), tmp_path / "shards").report
    assert [document["bytes"] for document in report["longest_documents"]] == [800, 700, 600, 500, 400]
    assert report["longest_documents"][0]["id"].endswith("8.txt")


def test_the_bar_follows_a_preparation(write, tmp_path, capsys) -> None:
    folder = write({"a.txt": "text\n" * 100})
    with Bar() as bar:
        prepare(TextFiles([f"{folder}/*"]), ByteSpec(), tmp_path / "shards", progress=bar)
        task = bar._bar.tasks[0]
    assert (task.completed, task.total, task.fields["documents"]) == (500, 500, "1 documents")


def test_the_page_can_be_read_on_a_phone_and_by_axe(corpus, browser) -> None:
    page = browser.new_page(viewport=PHONE, color_scheme="dark")
    page.goto((corpus.folder / "report.html").as_uri())
    assert faults(page) == []
    assert width_beyond(page) == 0
    page.context.close()
