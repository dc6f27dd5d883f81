"""Secrets, given in every way that a person could: the run uses them, and no file that it writes holds one."""

import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm.cli.main import main
from llm.train.run import Run

SECRET = "CanaryQ7"
URL = f"https://someone:{SECRET}@host.invalid/notes"
SOURCE = f'''
from dataclasses import dataclass
from llm.data.sources import TextFiles

@dataclass(frozen=True)
class Remote(TextFiles):
    """Text behind an address that takes a password."""

    paths: str | list[str] = ""
    validation_share: float = 0.05
    on_bad_file: str = "error"
    url: str = ""
    options: dict | None = None

    def plan(self, files):
        assert self.url == "{URL}" and self.options["headers"]["credentials"]["me"] == "{SECRET}"
        return super().plan(files)
'''


@pytest.fixture
def words(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A run with all loggers on, whose data, notes and prompts hold a secret, as does the environment."""
    import wandb

    (tmp_path / "remote_text.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET * 5)
    wandb.teardown()
    yield [
        *(word for word in tiny if not word.startswith(("shards_dir", "samples.every"))),
        f"shards_dir={tmp_path}/shards",
        "name=a",
        "samples.every_n_steps=1",
        f"samples.prompts=['curl {URL}']",
        "logger=[csv,wandb,tensorboard]",
        "logger.wandb.mode=offline",
        f"logger.wandb.notes='text of {URL}'",
        f"logger.wandb.tags=['{URL}']",
        "packages=[remote_text]",
        "data._target_=remote_text.Remote",
        f"+data.url={URL}",
        f"+data.options={{headers: {{credentials: {{me: {SECRET}}}}}, api_key: {SECRET}, "
        f"query: 'https://host.invalid/x?token={SECRET}&v=2'}}",
    ]
    wandb.teardown()


def written(root: Path) -> dict[str, bytes]:
    """Every file's name and content, once more unpacked where it is packed."""
    files = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
    packed = {name: data for name, data in files.items() if data.startswith(b"\x1f\x8b")}
    return files | {f"{name}, unpacked": gzip.decompress(data) for name, data in packed.items()}


def test_no_file_of_a_run_holds_a_secret(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    assert main(["train", *words, "trainer.max_steps=2"]) == 0
    quiet = [word for word in words if not word.startswith("logger")]
    assert main(["train", *quiet, "trainer.max_steps=3"]) == 0
    shown = capsys.readouterr()
    assert "trainer.max_steps: 2 -> 3" in shown.out
    assert "data.url" not in shown.out

    files = written(tmp_path / "runs") | written(tmp_path / "shards")
    kinds = (
        ".wandb",
        ".csv",
        "report.html",
        "run.json",
        "config.yaml",
        "manifest.json",
        "report.json",
        "index.json",
    )
    for kind in (*kinds, "samples.jsonl", "results.json", ".log"):
        assert any(name.endswith(kind) for name in files), kind
    assert any("tfevents" in name for name in files)
    assert [name for name, data in files.items() if SECRET.encode() in data] == []
    assert SECRET not in shown.out + shown.err
    # The search would find it: what surrounds it is there, in what W&B records too.
    tracked = next(data for name, data in files.items() if name.endswith(".wandb"))
    assert b"text of https://<redacted>@host.invalid" in tracked

    known = Run(tmp_path / "runs/a").config["data"]
    assert known["url"] == "https://<redacted>@host.invalid/notes"
    assert known["options"]["query"] == "https://host.invalid/x?token=<redacted>&v=2"


def test_a_run_with_secrets_goes_on_with_its_shards_where_its_text_is_gone(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = [word for word in words if not word.startswith(("logger", "samples", "data.paths"))]
    text = tmp_path / "mine.txt"
    text.write_text("def spam(eggs): return eggs\n" * 200)
    assert main(["train", *quiet, f"data.paths={text}", "trainer.max_steps=2"]) == 0
    text.unlink()
    assert main(["train", *quiet, f"data.paths={text}", "trainer.max_steps=3"]) == 0
    assert "Going on with the shards" in capsys.readouterr().out


def test_an_address_that_is_a_path_is_in_no_file(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        *(word for word in tiny if not word.startswith(("shards_dir", "data"))),
        f"shards_dir={tmp_path}/shards",
    ]
    sources = {
        "text": f"data.paths={URL}/*.txt",
        "jsonl": f"data.paths=[{URL}/*.jsonl]",
        "huggingface": f"data.path={URL}",
    }
    for name, word in sources.items():
        assert main(["train", *words, f"data={name}", word, f"name={name}"]) == 2
    assert [name for name, data in written(tmp_path).items() if SECRET.encode() in data] == []
    folder = tmp_path / URL
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("def spam(eggs): return eggs\n" * 200)
    os.utime(folder / "a.txt", (1e9, 1e9))
    small = ["data.batch_size=4", "data.micro_batch_size=4", "name=a", "trainer.max_steps=2"]
    assert main(["train", *words, *small, "data=text", sources["text"]]) == 0
    files = written(tmp_path / "runs") | written(tmp_path / "shards")
    assert any(b"https:/<redacted>@host.invalid/notes/a.txt" in data for data in files.values())
    assert [name for name, data in files.items() if SECRET.encode() in data] == []
