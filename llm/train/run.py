"""A run is one folder: what stands in it, who may write to it, and what is known about it."""

import contextlib
import datetime
import platform
import shutil
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from llm import __version__
from llm.errors import CheckpointError
from llm.files import read_json, read_object, write_atomically, write_json
from llm.redaction import redacted

RECORD = "run.json"
# What a run writes before it trains, and of what kind.
BEGUN = {
    "id": str,
    "created": str,
    "status": str,
    "data": dict,
    "derived": dict,
    "resumes": list,
}
PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "sentencepiece", "tokenizers", "safetensors")


class Run:
    """One run's folder.

    The record (run.json) is a plain dict; `update` merges keys into it and writes it whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.tokenizer = folder / "tokenizer"
        self.metrics = folder / "metrics.csv"
        self.samples = folder / "samples.jsonl"
        self.results = folder / "results.json"
        self.evaluation = folder / "evaluation.json"
        self.references = folder / "references.safetensors"
        self._lock = FileLock(folder / ".lock", timeout=0)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """An existing run.

        Raises:
            CheckpointError: `folder` is missing or is not a run.
        """
        run = cls(Path(folder))
        if not run.exists():
            found = "does not exist" if not run.folder.exists() else f"holds no {RECORD}"
            raise CheckpointError(
                f"run={folder}: not a run folder, it {found}. A run is what train.py makes under runs/."
            )
        return run

    def exists(self) -> bool:
        """Whether the folder is a run's."""
        return (self.folder / RECORD).is_file()

    def hold(self) -> None:
        """Keep every other process out until this one ends.

        Raises:
            CheckpointError: another process trains here, or the folder holds something else.
        """
        if self.folder.exists() and not self.exists() and self._foreign():
            raise CheckpointError(
                f"{self.folder} exists and is not a run folder (it holds no {RECORD}). Nothing was changed. "
                "Choose another name= or runs_dir=."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise CheckpointError(
                f"Another process is training in {self.folder}. Wait for it, stop it, or choose another name=."
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"{self._lock.lock_file} can't be locked: {error.strerror}. Choose another name= or runs_dir=, or mend it."
            ) from error

    def release(self) -> None:
        """Let others in; a folder that nothing was written to goes."""
        if not self._lock.is_locked:
            return
        if not self._foreign():
            (self.folder / ".lock").unlink(missing_ok=True)
            self.folder.rmdir()
        self._lock.release()

    def held(self) -> bool:
        """Whether a process trains here now."""
        lock = FileLock(self._lock.lock_file, timeout=0)
        if not (self.folder / ".lock").exists():
            return False
        try:
            lock.acquire()
        except Timeout:
            return True
        except OSError:  # where we may not write, nobody can tell
            return False
        lock.release()
        return False

    def _foreign(self) -> bool:
        return any(entry.name != ".lock" for entry in self.folder.iterdir())

    def set_aside(self) -> Path:
        """Move an earlier run's content to the first free `<folder>.old-N`, keeping the lock; returns that folder."""
        target = next(p for n in range(1, 10_000) if not (p := Path(f"{self.folder}.old-{n}")).exists())
        target.mkdir()
        # The record goes last: a kill in between leaves what is still a run, not a folder that nobody may use.
        for entry in sorted(self.folder.iterdir(), key=lambda path: path.name == RECORD):
            if entry.name != ".lock":
                shutil.move(entry, target / entry.name)
        return target

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says; empty before the first `update`.

        Raises:
            CheckpointError: it is damaged.
        """
        path = self.folder / RECORD
        try:
            return read_object(path) if path.exists() else {}
        except ValueError as error:
            raise self._damaged(path, error) from None

    @property
    def begun(self) -> dict[str, Any]:
        """The record of a run that began; empty where none did.

        Raises:
            CheckpointError: it is damaged, or lacks what every run writes before it trains.
        """
        if not self.exists():
            return {}
        record = self.record
        wrong = [name for name, kind in BEGUN.items() if not isinstance(record.get(name), kind)]
        if wrong:
            raise self._damaged(self.folder / RECORD, f"it has no good {', '.join(wrong)}")
        return record

    def _damaged(self, path: Path, why: object) -> CheckpointError:
        return CheckpointError(
            f"{path} is damaged ({why}). Copy it back from where it is whole. Without it, init_from={self.folder} under "
            "another name= keeps the weights, and resume=never starts anew (the folder is moved aside, not deleted)."
        )

    def update(self, **changes: Any) -> None:
        """Merge `changes` into run.json."""
        write_json(self.folder / RECORD, {**self.record, **changes})

    @property
    def config(self) -> dict[str, Any]:
        """The composed config that the run was last started with, secrets redacted; never more than plain values.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        path = self.folder / "config.yaml"
        try:
            if path.exists() and not path.is_file():
                raise ValueError("it is no file")
            config = yaml.load(path.read_text(encoding="utf-8"), Loader=PlainLoader)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise self._damaged(path, " ".join(str(error).split())) from None
        if not isinstance(config, dict):
            raise self._damaged(path, "it holds no keys")
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the composed config, secrets redacted."""
        text = yaml.safe_dump(redacted(config), sort_keys=False, allow_unicode=True)
        write_atomically(self.folder / "config.yaml", text)

    def append_evaluation(self, entries: list[dict[str, Any]]) -> None:
        """Add to evaluation.json; an entry replaces the earlier one of the same checkpoint, data, split and kind."""

        def key(entry: dict[str, Any]) -> tuple:
            return tuple(entry[name] for name in ("evaluation", "data", "split", "checkpoint"))

        try:
            known = read_json(self.evaluation) if self.evaluation.exists() else []
            fresh = {key(entry) for entry in entries}
            kept = [entry for entry in known if key(entry) not in fresh]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.evaluation} is damaged ({error}): move it away to score anew."
            ) from None
        write_json(self.evaluation, kept + entries)


class PlainLoader(yaml.SafeLoader):
    """Reads what `Run.write_config` writes: no tags of Python's, and no aliases, which can expand without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, unless it stands for another."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it has an alias, *{self.peek_event().anchor}")
        return super().compose_node(parent, index)


def flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a nested dict with its dotted key."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def versions() -> dict[str, str]:
    """The versions of Python and of all packages that bear on training, those of extras where they are installed."""
    return {"python": platform.python_version(), "llm": __version__, **_package_versions()}


@cache
def _package_versions() -> dict[str, str]:
    """What the packages' own files say, read once: for each, all folders of packages are looked through."""
    found = {name: metadata.version(name) for name in PACKAGES}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["deepspeed"] = metadata.version("deepspeed")
    return found


def environment() -> dict[str, str]:
    """What a run was made with."""
    return {"platform": platform.platform(), **versions()}


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
