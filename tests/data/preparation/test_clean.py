import os
import random
import signal
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_preparation import Interrupted, Watch, full_after, hashes, stop_at, wait_for_end

from llm.data import prepare
from llm.data.files import cutting
from llm.data.preparation import clean, compare
from llm.data.preparation.report import render
from llm.data.sources import JsonLines, StandardLibrary, TextFiles
from llm.data.steps import Contamination, DuplicateLines, GopherQuality, Length, LowerCase, NearDuplicates
from llm.errors import ConfigError, DataError
from llm.tokenizer import ByteSpec

WORDS = [
    "wool",
    "salt",
    "timber",
    "harbour",
    "wall",
    "street",
    "evening",
    "boat",
    "light",
    "trade",
    "coast",
    "town",
    "north",
    "summer",
    "sea",
]


def text_of(seed: int, count: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + str(draw.randrange(50)) for _ in range(count))


STEPS = {"length": Length(min_words=20), "lower": LowerCase(), "near": NearDuplicates()}


@pytest.fixture
def paths(write, monkeypatch) -> list[str]:
    """Text in several pieces: 60 different documents, 5 of them nearly repeated, one exactly, and 3 too short."""
    monkeypatch.setattr(cutting, "MIN_PIECE_BYTES", 1 << 12)
    texts = {f"a{number:02d}.txt": text_of(number, 150) + " END" for number in range(60)}
    texts |= {f"b{number}.txt": texts[f"a{number:02d}.txt"] + " and a little more" for number in range(5)}
    texts |= {"c0.txt": texts["a07.txt"].upper()} | {
        f"d{number}.txt": f"short {number}" for number in range(3)
    }
    return [f"{write(texts)}/*.txt"]


def test_steps_change_leave_out_and_compare(paths, tmp_path, documents_of) -> None:
    corpus = prepare(TextFiles(paths, validation_share=0), ByteSpec(), tmp_path / "shards", steps=STEPS)
    kept = [document.decode() for document in documents_of(corpus, corpus.train)]
    assert kept == [text_of(number, 150) + " end" for number in range(60)]
    found = corpus.report["cleaning"]
    assert (found["documents"], found["kept_documents"]) == (69, 60)
    assert found["steps"]["length"]["dropped"] == {"too short": 3}
    assert found["steps"]["lower"]["remarks"] == {"changed": 66}
    assert found["steps"]["near"]["dropped"] == {compare.NEAR: 5}
    assert corpus.report["duplicates_dropped"] == 1
    ((id_, after, before), *_) = found["steps"]["near"]["examples"][compare.NEAR]
    assert id_.endswith("a00.txt")
    assert after[:200] == before[:200]


def test_the_result_is_the_same_for_any_number_of_processes(paths, tmp_path) -> None:
    one, two = (
        prepare(TextFiles(paths), ByteSpec(), tmp_path / str(n), steps=STEPS, processes=n) for n in (1, 2)
    )
    assert hashes(one) == hashes(two)


def test_what_is_held_out_is_chosen_of_what_is_left(paths, tmp_path) -> None:
    corpus = prepare(TextFiles(paths, validation_share=0.2), ByteSpec(), tmp_path / "shards", steps=STEPS)
    assert 4 <= corpus.validation.n_documents <= 25
    assert corpus.validation.n_documents + corpus.train.n_documents == 60


def test_a_corpus_is_found_again_and_clean_text_is_reused(paths, tmp_path, monkeypatch) -> None:
    first = prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=STEPS)
    monkeypatch.setattr(clean, "clean_piece", lambda *_: pytest.fail("cleaned again"))
    assert prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=STEPS).folder == first.folder
    special = ByteSpec(("<unk>", "<pad>", "<|endoftext|>", "<x>"))
    other = prepare(TextFiles(paths), special, tmp_path / "shards", steps=STEPS)
    assert other.folder != first.folder
    assert other.report["cleaning"] == first.report["cleaning"]


def test_other_steps_are_another_corpus(paths, tmp_path) -> None:
    folders = {
        prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=steps).folder
        for steps in ({}, STEPS, {**STEPS, "length": Length(min_words=2)}, {"lower": LowerCase()})
    }
    assert len(folders) == 4


def test_a_stopped_cleaning_goes_on_where_it_stopped(paths, tmp_path, monkeypatch) -> None:
    whole = hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "clean", steps=STEPS))
    with pytest.raises(Interrupted):
        prepare(
            TextFiles(paths),
            ByteSpec(),
            tmp_path / "shards",
            steps=STEPS,
            processes=1,
            progress=Watch(stop_at(5)),
        )
    made, work = [], clean.clean_piece
    monkeypatch.setattr(clean, "clean_piece", lambda *job: made.append(job[2].number) or work(*job))
    assert (
        hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=STEPS, processes=1)) == whole
    )
    assert min(made) == 4


def test_a_damaged_piece_is_made_again(paths, tmp_path) -> None:
    whole = hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=STEPS))
    (path, *_) = sorted((tmp_path / "shards/cleaned").glob("*/000002.jsonl.gz"))
    path.write_bytes(path.read_bytes()[:-9])
    for folder in (tmp_path / "shards").glob("text-*"):
        (folder / "index.json").unlink()
    assert hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=STEPS)) == whole


def test_an_empty_result_names_the_step(paths, tmp_path) -> None:
    steps = {"length": Length(min_words=20), "quality": GopherQuality()}
    with pytest.raises(
        DataError,
        match=r"No document is left of 69: length left out 3 of 69 \(3 too short\); quality left out 66 of 66 "
        r"\(66 .*data\.steps\.quality=null",
    ):
        prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=steps)


def test_comparisons_stand_last(paths, tmp_path) -> None:
    with pytest.raises(ConfigError, match="lower stands behind near"):
        prepare(
            TextFiles(paths), ByteSpec(), tmp_path, steps={"near": NearDuplicates(), "lower": LowerCase()}
        )


def test_lines_that_came_before_are_left_out_in_order(write, tmp_path, monkeypatch, documents_of) -> None:
    monkeypatch.setattr(cutting, "MIN_PIECE_BYTES", 1 << 12)
    menu = "Home\n\nNews and more"
    texts = [f"{menu}\n{text_of(number, 150)}\n{text_of(number // 2, 20)}" for number in range(20)]
    texts[3] = menu  # nothing is left of it
    texts[5] = texts[4]  # a document that repeats another
    folder = write({f"{number:02d}.txt": text for number, text in enumerate(texts)})
    source, steps = TextFiles([f"{folder}/*.txt"], 0), {"lower": LowerCase(), "lines": DuplicateLines(2)}
    corpus = prepare(source, ByteSpec(), tmp_path / "shards", steps=steps, processes=1)
    seen, expected, gone = set(), [], 0
    for text in dict.fromkeys(texts):
        lines = text.lower().split("\n")
        kept = [line for line in lines if len(line.split()) < 2 or line not in seen]
        seen |= set(lines)
        gone += len(lines) - len(kept)
        if any(len(line.split()) >= 2 for line in kept):
            expected.append("\n".join(kept).encode())
    assert documents_of(corpus, corpus.train) == expected
    tally = corpus.report["cleaning"]["steps"]["lines"]
    assert tally["dropped"] == {"no line of its own": 1}
    assert tally["remarks"] == {"lines as in an earlier place": gone}
    assert tally["examples"]["lines as in an earlier place"][0] == [f"{folder}/01.txt", "news and more"]


def test_pairs_take_no_steps(write, tmp_path) -> None:
    folder = write({"a.jsonl": '{"source": "a", "target": "b"}\n' * 3})
    with pytest.raises(ConfigError, match="pairs of texts"):
        prepare(
            JsonLines([f"{folder}/a.jsonl"], "source", "target"),
            ByteSpec(),
            tmp_path / "s",
            steps={"lower": LowerCase()},
        )


def test_the_standard_library_keeps_its_split(tmp_path) -> None:
    plain, lower = (
        prepare(StandardLibrary(), ByteSpec(), tmp_path / "shards", steps=steps)
        for steps in ({}, {"l": LowerCase()})
    )
    assert lower.validation.n_documents == plain.validation.n_documents


def test_one_long_line_is_judged_in_stretches(write, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cutting, "MIN_PIECE_BYTES", 1 << 14)
    text = "Word " * 40_000
    folder = write({"a.txt": text})
    corpus = prepare(
        TextFiles([f"{folder}/a.txt"], 0), ByteSpec(), tmp_path / "s", steps={"lower": LowerCase()}
    )
    assert corpus.train.n_bytes + corpus.report["duplicates_dropped"] * (1 << 14) == pytest.approx(
        len(text), rel=0.1
    )


KILLED = """
import os, sys
from llm.data import prepare
from llm.data.files import cutting
from llm.data.sources import TextFiles
from llm.data.steps import DuplicateLines, Length, LowerCase, NearDuplicates
from llm.tokenizer import ByteSpec

if __name__ == "__main__":
    cutting.MIN_PIECE_BYTES = 1 << 12
    steps = {"length": Length(min_words=20), "lower": LowerCase(), "near": NearDuplicates(), "lines": DuplicateLines()}
    prepare(TextFiles([sys.argv[1]]), ByteSpec(), sys.argv[2], steps=steps, processes=int(sys.argv[3]))
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_gives_the_same_shards(paths, tmp_path) -> None:
    steps = {**STEPS, "lines": DuplicateLines()}
    whole = hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "clean", steps=steps))
    script, draw, killed, rounds = tmp_path / "killed.py", random.Random(0), 0, 0
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    while killed < 20:
        rounds += 1
        assert rounds <= 60, "it is done before it is killed"
        shards = tmp_path / f"shards{rounds}"
        command = [sys.executable, script, paths[0], shards, str(1 + rounds % 2)]
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        while not shards.exists() and child.poll() is None:
            time.sleep(0.01)
        try:
            child.wait(draw.uniform(0.0, 3.0))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            killed += child.wait() == -signal.SIGKILL
        wait_for_end(child.pid)
        assert hashes(prepare(TextFiles(paths), ByteSpec(), shards, steps=steps, processes=1)) == whole


class Loads(HTMLParser):
    """The addresses that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {value}" for name, value in attrs if name in ("src", "href") and value]


def test_the_page_tells_what_steps_did_and_loads_nothing(write, tmp_path) -> None:
    texts = {f"{n}.txt": f"<script>alert({n})</script> {text_of(n, 50)} END" for n in range(30)} | {
        "x.txt": "<b>short"
    }
    corpus = prepare(TextFiles([f"{write(texts)}/*"]), ByteSpec(), tmp_path / "shards", steps=STEPS)
    page = (corpus.folder / "report.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert "<script" not in page
    for told in ("too short: examples", "&lt;b&gt;short", "30 changed", "Languages", "e-mail addresses"):
        assert told in page
    assert sum(corpus.report["lengths"].values()) == 30
    lines = render(corpus.report).splitlines()
    assert "  length             left out 1 of 31: 1 too short" in lines


def test_the_page_tells_of_overlap_with_evaluation_sets(write, tmp_path) -> None:
    texts = {f"{n}.txt": text_of(n, 60) for n in range(12)}
    folder, sets = write(texts), write({"quiz.txt": texts["3.txt"]}, "sets")
    (sets / "other.txt").write_text(text_of(99, 60))
    pages = {}
    for name, paths in {"both": ["quiz.txt", "other.txt"], "none": ["other.txt"]}.items():
        steps = {"overlap": Contamination([f"{sets}/{path}" for path in paths])}
        corpus = prepare(TextFiles([f"{folder}/*"]), ByteSpec(), tmp_path / name, steps=steps)
        pages[name] = (corpus.folder / "report.html").read_text()
    assert '<th scope="row">overlaps with quiz.txt</th><td>1</td>' in pages["both"]
    assert f"{folder}/3.txt" in pages["both"]
    assert "overlaps with other.txt" not in pages["both"]
    assert "No document shares as many words" in pages["none"]
    plain = prepare(TextFiles([f"{folder}/*"]), ByteSpec(), tmp_path / "plain")
    assert "Not looked for" in (plain.folder / "report.html").read_text()


def test_a_full_disk_is_named_and_what_was_finished_stays(paths, tmp_path, monkeypatch) -> None:
    whole = hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "clean", steps=STEPS))
    with monkeypatch.context() as patch:
        full_after(60, patch)
        with pytest.raises(DataError, match=r"disk of .*/shards is full"):
            prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=STEPS, processes=1)
    assert list((tmp_path / "shards/cleaned").glob("*/*.json"))
    assert not list((tmp_path / "shards").rglob("*.tmp"))
    assert (
        hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", steps=STEPS, processes=1)) == whole
    )


def test_a_second_preparation_waits_and_reuses(paths, tmp_path) -> None:
    inside, go, found = threading.Event(), threading.Event(), []
    first_watch = Watch(lambda updates: (inside.set(), go.wait(20)) if updates == 1 else None)
    second_watch = Watch()

    def run(watch: Watch) -> None:
        shards = tmp_path / "shards"
        found.append(prepare(TextFiles(paths), ByteSpec(), shards, steps=STEPS, processes=1, progress=watch))

    threads = [threading.Thread(target=run, args=[watch]) for watch in (first_watch, second_watch)]
    threads[0].start()
    assert inside.wait(20)
    threads[1].start()
    while not any("Waiting" in stage for stage in second_watch.stages):
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join(60)
    assert len({corpus.folder for corpus in found}) == 1
    assert 0 < first_watch.kept <= 1


@pytest.mark.slow
def test_one_line_of_84_mb_is_cleaned_in_bounded_memory(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("word " * (64 << 18))
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20)); "
    code = (
        "from llm.data import prepare; from llm.data.sources import TextFiles; from llm.tokenizer import ByteSpec; "
        "from llm.data.steps import Length, LowerCase, NearDuplicates; "
        "steps = {'lower': LowerCase(), 'length': Length(min_words=1), 'near': NearDuplicates()}; "
        "prepare(TextFiles([sys.argv[1]], 0), ByteSpec(), sys.argv[2], steps=steps, processes=1)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", limit + code, str(path), str(tmp_path / "shards")]
    subprocess.run(command, env=environment, check=True, timeout=120)
