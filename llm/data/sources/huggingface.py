"""Datasets of the Hugging Face hub, or of a local folder, through the `datasets` library; streamed or not."""

import functools
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from llm.data.documents import Document, LeftOut, Piece, ReadingPlan, fingerprint
from llm.data.documents.split import DEFAULT_SHARE, check_share, first_documents
from llm.data.files.cutting import piece_bytes
from llm.data.files.inputs import InputFiles
from llm.data.sources.records import Fields
from llm.errors import ConfigError, DataError, UserError, missing_package
from llm.redaction import redacted_text

READ_BYTES = 1 << 22
# Left in a folder by `save_to_disk`, which `load_dataset` does not read.
SAVED_MARKS = ("state.json", "dataset_dict.json")


@dataclass(frozen=True)
class HuggingFace:
    """Source: the rows of a split of a dataset, a document each; `text`, `label`, `rejected`, `passage`: see `Fields`.

    `path` is an id on the hub or a local folder, `name` its configuration, `revision` a commit, tag or branch.
    With `streaming` nothing is stored but the tokens. `limit` takes the first so many rows (None: all). Numbers that the
    dataset has names for are read by these; a row whose label is -1 has none, and is left out.
    """

    path: str
    name: str | None = None
    split: str = "train"
    text: str = "text"
    label: str | None = None
    rejected: str | None = None
    passage: str | None = None
    streaming: bool = False
    limit: int | None = None
    revision: str | None = None
    validation_share: float = DEFAULT_SHARE

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit={self.limit} must be at least 1, or null for all rows.")

    @property
    def fields(self) -> Fields:
        """What makes a document of a row."""
        return Fields(self.text, self.label, self.rejected, self.passage)

    @property
    def corpus_name(self) -> str:
        """The last part of the path, and the configuration."""
        parts = [Path(redacted_text(self.path)).name, self.name or ""]
        return "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts if part)

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Load the dataset (or its beginning, streamed) and cut it into pieces."""
        dataset = load(self)
        columns = dataset.column_names
        names = self.fields.names if columns is None else self.fields.among(columns)
        n_bytes = None if self.streaming else dataset.select_columns(names).data.nbytes
        pieces = _shards(self, dataset) if n_bytes is None else _row_ranges(self, len(dataset), n_bytes)
        contents = list(
            _streamed_contents(self, files) if self.streaming else _stored_contents(dataset, files)
        )
        files.save()
        split = self.fields.split(first_documents(pieces), self.validation_share)
        settings = {"kind": "huggingface", **self.fields.settings()}
        settings |= {
            "limit": self.limit,
            "split": split.settings(),
            "path": Path(self.path).name,
            "name": self.name,
            "rows": self.split,
            "streamed": self.streaming,
        }
        return ReadingPlan(fingerprint(settings, contents), pieces, split, n_bytes)


@dataclass(frozen=True)
class RowsPiece:
    """The rows [start, stop) of a dataset that is stored here, read `batch` at a time."""

    source: HuggingFace
    start: int
    stop: int
    batch: int

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the rows in order."""
        dataset = load(self.source)
        names = self.source.fields.among(dataset.column_names)
        rows = dataset.select(range(self.start, self.stop)).select_columns(names)
        number = self.start
        for batch in rows.iter(self.batch):
            for values in zip(*(batch[name] for name in names), strict=True):
                row = dict(zip(names, values, strict=True))
                yield _document(self.source, row, dataset.features, f"row {number}")
                number += 1


@dataclass(frozen=True)
class ShardPiece:
    """One of the `count` files of a dataset that is streamed; its first rows where the source has a limit."""

    source: HuggingFace
    index: int
    count: int

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the rows in order."""
        dataset = load(self.source)
        shard = dataset.shard(self.count, self.index) if self.count > 1 else dataset
        try:
            for number, row in enumerate(islice(shard, self.source.limit)):
                yield _document(self.source, row, dataset.features, f"file {self.index} row {number}")
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.source.path} can't be streamed any further: {error}. What was finished is kept: run the "
                "same command again."
            ) from error


def _document(source: HuggingFace, row: dict[str, Any], features: Any, where: str) -> Document:
    id_ = f"{source.path} {where}"
    if source.label in row:
        row = {**row, source.label: _named(row[source.label], (features or {}).get(source.label))}
    try:
        return source.fields.document(id_, row)
    except UserError as error:
        raise type(error)(f"{id_}: {error}") from error


def _named(value: Any, feature: Any) -> Any:
    """A label, or a list of them, by the names that the dataset has for its numbers."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(one, feature) for one in value]
    return names[value] if value >= 0 else None


def _datasets() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise missing_package("data=huggingface", "datasets", "huggingface") from error


@functools.lru_cache(maxsize=1)
def load(source: HuggingFace) -> Any:
    """The split as a `Dataset`, or as an `IterableDataset` where it is streamed."""
    library = _datasets()
    what = f"data.path={source.path} data.name={source.name} data.split={source.split}"
    try:
        if any((Path(source.path) / mark).is_file() for mark in SAVED_MARKS):
            return _load_saved(library, source)
        options = {"split": source.split, "revision": source.revision, "streaming": source.streaming}
        return _limited(library.load_dataset(source.path, source.name, **options), source)
    except (ConnectionError, TimeoutError) as error:
        raise DataError(f"{what} can't be reached: {error}") from error
    except (OSError, ValueError, KeyError, library.exceptions.DatasetsError) as error:
        raise ConfigError(f"{what} can't be loaded: {error}") from error


def _load_saved(library: ModuleType, source: HuggingFace) -> Any:
    saved = library.load_from_disk(source.path)
    if isinstance(saved, library.DatasetDict):
        saved = saved[source.split]
    return saved.to_iterable_dataset() if source.streaming else _limited(saved, source)


def _limited(dataset: Any, source: HuggingFace) -> Any:
    if source.streaming or source.limit is None:
        return dataset
    return dataset.select(range(min(source.limit, len(dataset))))


def _row_ranges(source: HuggingFace, rows: int, n_bytes: int) -> Sequence[Piece]:
    mean = 1 + n_bytes // max(1, rows)
    step, batch = max(1, piece_bytes(n_bytes) // mean), max(1, min(1024, READ_BYTES // mean))
    return [RowsPiece(source, start, min(start + step, rows), batch) for start in range(0, rows, step)]


def _shards(source: HuggingFace, dataset: Any) -> Sequence[Piece]:
    # The first rows of a whole are not the first rows of each of its files.
    count = 1 if source.limit else dataset.num_shards
    return [ShardPiece(source, index, count) for index in range(count)]


def _stored_contents(dataset: Any, files: InputFiles) -> Iterator[str]:
    """Hashes of the Arrow files that the dataset lies in, or of its making where it lies in memory."""
    yield str(len(dataset))
    stored = [entry["filename"] for entry in dataset.cache_files]
    yield from (files.facts(name).sha256 for name in stored)
    if not stored:
        yield dataset._fingerprint


def _streamed_contents(source: HuggingFace, files: InputFiles) -> Iterator[str]:
    """Hashes of a local folder's files, or the commit on the hub: what a stream holds is not known before it is read."""
    folder = Path(source.path)
    if folder.is_dir():
        yield from (files.facts(str(path)).sha256 for path in sorted(folder.rglob("*")) if path.is_file())
        return
    hub = importlib.import_module("huggingface_hub")
    try:
        yield hub.HfApi().dataset_info(source.path, revision=source.revision).sha
    except OSError as error:
        raise DataError(f"The hub doesn't say which version of {source.path} it has: {error}") from error
