import hashlib
import os
import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.files import inputs
from llm.data.files.inputs import InputFiles, find_files, scan
from llm.errors import ConfigError, DataError


def age(path: Path, seconds: int = 100) -> None:
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_facts_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, record = tmp_path / "a.txt", tmp_path / "record.sqlite"
    path.write_text("one")
    age(path)
    files = InputFiles(record)
    assert files.facts(str(path)) == (hashlib.sha256(b"one").hexdigest(), 3, None)
    files.save()
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "scan", lambda path: pytest.fail("read again"))
        assert InputFiles(record).facts(str(path)).sha256 == hashlib.sha256(b"one").hexdigest()
    path.write_text("two")
    assert InputFiles(record).facts(str(path)).sha256 == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    path, record = tmp_path / "a.txt", tmp_path / "record.sqlite"
    path.write_text("one")
    files = InputFiles(record)
    files.facts(str(path))
    files.save()
    path.write_text("two")
    assert InputFiles(record).facts(str(path)).sha256 == hashlib.sha256(b"two").hexdigest()


def test_two_processes_may_learn_at_once(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
        age(tmp_path / name)
    record = tmp_path / "record.sqlite"
    first, second = InputFiles(record), InputFiles(record)
    first.facts(f"{tmp_path}/a")
    second.facts(f"{tmp_path}/b")
    first.save()
    second.save()
    with sqlite3.connect(record) as database:
        assert database.execute("SELECT count(*) FROM files").fetchone() == (2,)


def test_facts_are_kept_while_many_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "ROWS_AT_ONCE", 2)
    files = InputFiles(tmp_path / "record.sqlite")
    for name in "abc":
        (tmp_path / name).write_text(name)
        age(tmp_path / name)
        files.facts(f"{tmp_path}/{name}")
    with sqlite3.connect(tmp_path / "record.sqlite") as database:
        assert database.execute("SELECT count(*) FROM files").fetchone() == (2,)


def test_a_damaged_record_is_passed_over(tmp_path: Path) -> None:
    record = tmp_path / "record.sqlite"
    record.write_text("{")
    (tmp_path / "a.txt").write_text("one")
    assert InputFiles(record).facts(str(tmp_path / "a.txt")).size == 3


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (b"plain \xc3\xa9", None),
        (b"", None),
        (b"ab\0c", "byte 2 is NUL"),
        (b"ab\xffc", r"byte 2 \(0xff\) is not UTF-8"),
        (b"abc\xe2\x82", "byte 3 is not UTF-8: the file ends inside"),
    ],
)
def test_flaws_are_found_with_their_offset(tmp_path: Path, content: bytes, flaw: str | None) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    found = scan(str(path)).flaw
    assert found is None if flaw is None else re.match(flaw, str(found))


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), st.integers(1, 7))
def test_a_flaw_is_found_wherever_the_blocks_end(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, block: int
) -> None:
    path = tmp_path_factory.mktemp("scan") / "a"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "BLOCK_BYTES", block)
        facts = scan(str(path))
    try:
        clean = "\0" not in data.decode()
    except UnicodeDecodeError:
        clean = False
    assert (facts.flaw is None) == clean
    assert facts.sha256 == hashlib.sha256(data).hexdigest()


def test_patterns_are_recursive_sorted_and_give_each_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "deep/er/a.txt", "c.md", "odd[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_files([f"{tmp_path}/**/*.txt", f"{tmp_path}/b.txt", f"{tmp_path}/odd[1].txt"])
    assert [Path(path).relative_to(tmp_path).as_posix() for path in found] == [
        "b.txt",
        "deep/er/a.txt",
        "odd[1].txt",
    ]
    assert find_files(f"{tmp_path}/c.md") == [f"{tmp_path}/c.md"]


def test_what_matches_nothing_is_named_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"data\.paths.*'no/\*\.txt'.*{tmp_path}"):
        find_files(["no/*.txt"])
    with pytest.raises(ConfigError, match=r"folder.*\*\*/\*\.txt"):
        find_files([str(tmp_path)])
    with pytest.raises(ConfigError, match=r"data\.paths is empty"):
        find_files([])


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt can't be read"):
        InputFiles().facts(str(tmp_path / "gone.txt"))
