import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llm.data import Corpus, prepare
from llm.data.documents import ReadingPlan
from llm.data.executors.processes import _Worker
from llm.data.files import cutting
from llm.data.files.inputs import InputFiles
from llm.data.preparation import prepare as module
from llm.data.preparation.numbered import HashedFile
from llm.data.sources import TextFiles
from llm.errors import DataError
from llm.files import beside, sha256
from llm.tokenizer import ByteSpec, ByteTokenizer

SMALL = 1 << 12
PIECES = 18


@pytest.fixture
def paths(write, monkeypatch) -> list[str]:
    """Text that is cut into `PIECES` pieces, one document longer than a piece."""
    monkeypatch.setattr(cutting, "MIN_PIECE_BYTES", SMALL)
    texts = {f"{number:02d}.txt": f"Text {number} é.\n" * 100 for number in range(50)}
    folder = write(
        texts | {"long.txt": "".join(f"Line {number} of a long text.\n" for number in range(1000))}
    )
    return [f"{folder}/*.txt"]


def hashes(corpus: Corpus) -> dict[str, str]:
    return {name: sha256(corpus.folder / name) for name in ["index.json", *corpus.index["files"]]}


class Watch:
    """A progress that remembers, and calls `at` after each update."""

    def __init__(self, at=lambda updates: None) -> None:
        self.stages, self.updates, self.at = [], [], at

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def update(self, documents: int, n_bytes: int, total_bytes: int | None) -> None:
        self.updates.append((documents, n_bytes, total_bytes))
        self.at(len(self.updates))

    def keeping(self, share: float) -> None:
        self.kept = share


def test_the_shards_are_the_same_for_any_number_of_processes(paths, tmp_path) -> None:
    one, two = (prepare(TextFiles(paths), ByteSpec(), tmp_path / str(n), processes=n) for n in (1, 2))
    assert hashes(one) == hashes(two)
    assert not (one.folder / "pieces").exists()


def test_progress_ends_at_the_whole(paths, tmp_path) -> None:
    watch = Watch()
    corpus = prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", progress=watch)
    total = corpus.train.n_bytes + corpus.validation.n_bytes
    assert watch.updates[-1] == (51, total, total)
    assert watch.updates == sorted(watch.updates)
    assert "Tokenizing" in watch.stages


def test_a_second_run_reuses_the_shards(paths, tmp_path, monkeypatch) -> None:
    first = prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards")
    monkeypatch.setattr(module, "encode_piece", lambda *_: pytest.fail("made again"))
    assert prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards").folder == first.folder


@pytest.mark.parametrize(
    "change", [{"validation_share": 0.2}, {"special": ("<unk>", "<pad>", "<|endoftext|>", "<x>")}]
)
def test_other_settings_are_another_corpus(paths, tmp_path, change) -> None:
    first = prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards")
    spec = ByteSpec(change.pop("special")) if "special" in change else ByteSpec()
    assert prepare(TextFiles(paths, **change), spec, tmp_path / "shards").folder != first.folder


class Interrupted(Exception):
    pass


def stop_at(count: int):
    def stop(updates: int) -> None:
        if updates == count:
            raise Interrupted

    return stop


def test_a_stopped_preparation_goes_on_where_it_stopped(paths, tmp_path, monkeypatch) -> None:
    clean = hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "clean"))
    with pytest.raises(Interrupted):
        prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", processes=1, progress=Watch(stop_at(8)))
    (folder,) = (tmp_path / "shards").glob("text-*")
    with pytest.raises(
        DataError, match=r"no prepared corpus.*Prepare the data again; finished pieces are kept"
    ):
        Corpus.open(folder)
    made, encode = [], module.encode_piece
    monkeypatch.setattr(module, "encode_piece", lambda *job: made.append(job[3].number) or encode(*job))
    corpus = prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", processes=1)
    assert min(made) == 7
    assert hashes(corpus) == clean


def full_after(writes: int, monkeypatch) -> None:
    left, write = [writes], HashedFile.write

    def write_or_fail(self: HashedFile, array) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, array)

    monkeypatch.setattr(HashedFile, "write", write_or_fail)


@pytest.mark.parametrize("writes", [0, 15, 2 * PIECES + 3])
def test_a_full_disk_is_named_and_what_was_finished_stays(paths, tmp_path, monkeypatch, writes) -> None:
    with monkeypatch.context() as patch:
        full_after(writes, patch)
        with pytest.raises(
            DataError, match=rf"disk of {tmp_path}/shards is full: .* needs about 0 MB.*finished are kept"
        ):
            prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", processes=1)
    assert len(list((tmp_path / "shards").glob("text-*/pieces/*.json"))) == min(writes // 2, PIECES)
    assert not list((tmp_path / "shards").rglob("*.tmp"))
    resumed = prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", processes=1)
    assert hashes(resumed) == hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "clean", processes=1))


def test_a_second_preparation_waits_and_reuses(paths, tmp_path, monkeypatch) -> None:
    inside, go = threading.Event(), threading.Event()
    first_watch = Watch(lambda updates: (inside.set(), go.wait(20)) if updates == 1 else None)
    second_watch, found = Watch(), []

    def run(watch: Watch) -> None:
        found.append(prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", processes=1, progress=watch))

    first = threading.Thread(target=run, args=[first_watch])
    first.start()
    assert inside.wait(20)
    second = threading.Thread(target=run, args=[second_watch])
    second.start()
    while not any("Waiting" in stage for stage in second_watch.stages):
        time.sleep(0.01)
    go.set()
    first.join(20)
    second.join(20)
    assert len({corpus.folder for corpus in found}) == 1
    assert not second_watch.updates


def test_a_folder_that_can_not_be_written_is_named(paths, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/shards can't be written.*shards_dir="):
        prepare(TextFiles(paths), ByteSpec(), tmp_path / "file" / "shards")


class Remember(ByteSpec):
    """A spec that keeps the text that it is trained on."""

    needs_text = True

    def build(self, texts=()):
        seen.append("".join(texts))
        return super().build()


seen: list[str] = []


def test_the_tokenizer_is_trained_once_and_on_training_text_alone(paths, tmp_path, documents_of) -> None:
    seen.clear()
    corpus = prepare(TextFiles(paths, validation_share=0.3), Remember(), tmp_path / "shards")
    prepare(TextFiles(paths, validation_share=0.3), Remember(), tmp_path / "shards")
    assert len(seen) == 1
    assert seen[0].encode() == b"".join(documents_of(corpus, corpus.train))


def test_a_tokenizer_is_written_where_no_other_machine_writes(paths, tmp_path, monkeypatch) -> None:
    save, written = ByteTokenizer.save, []
    monkeypatch.setattr(ByteTokenizer, "save", lambda self, path: (written.append(path), save(self, path)))
    prepare(TextFiles(paths), Remember(), tmp_path / "shards")
    (made,) = (path for path in (tmp_path / "shards/tokenizers").iterdir() if path.is_dir())
    assert beside(made) in written


def test_the_text_for_the_tokenizer_is_bounded_and_from_all_over(paths) -> None:
    plan: ReadingPlan = TextFiles(paths, validation_share=0).plan(InputFiles())
    sample = "".join(module.training_texts(plan, budget=20_000))
    assert len(sample.encode()) < 20_000 + len(plan.pieces) * 2 * SMALL
    assert "Text 0 " in sample
    assert "of a long text" in sample


KILLED = """
import os, signal, sys
from llm.data import prepare
from llm.data.files import cutting
from llm.data.sources import TextFiles
from llm.tokenizer import ByteSpec

class Kill:
    def stage(self, name): pass
    def update(self, documents, n_bytes, total):
        if n_bytes:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    cutting.MIN_PIECE_BYTES = 1 << 12
    prepare(TextFiles([sys.argv[1]]), ByteSpec(), sys.argv[2], processes=int(sys.argv[3]), progress=Kill())
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_preparation_leaves_no_process_and_goes_on(paths, tmp_path, processes) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    shards = tmp_path / "shards"
    child = subprocess.Popen(
        [sys.executable, script, paths[0], shards, str(processes)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        start_new_session=True,
    )
    assert child.wait(60) == -signal.SIGKILL
    wait_for_end(child.pid)
    records = {path: path.stat().st_mtime_ns for path in shards.glob("text-*/pieces/*.json")}
    assert records
    kept = {}
    keep_records = Watch(lambda updates: kept.update({path: path.stat().st_mtime_ns for path in records}))
    resumed = prepare(TextFiles(paths), ByteSpec(), shards, processes=1, progress=keep_records)
    assert kept == records
    assert hashes(resumed) == hashes(prepare(TextFiles(paths), ByteSpec(), tmp_path / "clean", processes=1))


def wait_for_end(group: int) -> None:
    for _ in range(1000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("a worker outlived its parent")


def test_a_worker_that_dies_is_explained(paths, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_Worker, "start", os._exit)
    with pytest.raises(DataError, match=r"died, perhaps for want of memory.*Finished pieces are kept"):
        prepare(TextFiles(paths), ByteSpec(), tmp_path / "shards", processes=2)


def test_an_error_in_a_worker_arrives_whole(paths, tmp_path) -> None:
    source = TextFiles(paths)
    plan = source.plan(InputFiles())
    Path(paths[0].replace("*", "long")).unlink()

    class Planned:
        corpus_name = "text"

        def plan(self, files: InputFiles) -> ReadingPlan:
            return plan

    with pytest.raises(DataError, match=r"long\.txt can't be read any more"):
        prepare(Planned(), ByteSpec(), tmp_path / "shards", processes=2)
    assert not multiprocessing.active_children()
