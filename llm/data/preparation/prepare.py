"""Text to a corpus, once: planned, tokenized in pieces by several processes, put together, vouched for last."""

import errno
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from llm.bounds import MOST_SAMPLE_BYTES
from llm.data.corpus import FORMAT_VERSION, INDEX, Corpus, token_dtype
from llm.data.documents import ReadingPlan, Source, fingerprint
from llm.data.executors.processes import Do, Executor, Processes
from llm.data.files.inputs import InputFiles
from llm.data.preparation.assemble import assemble
from llm.data.preparation.clean import clean, cleaned_fingerprint
from llm.data.preparation.encode import Counts, PieceFiles, encode_piece, kept_parts
from llm.data.preparation.numbered import finished_records
from llm.data.preparation.page import page
from llm.data.preparation.pipeline import AnyStep, Pipeline
from llm.data.preparation.progress import PrepareProgress, Silent
from llm.data.preparation.report import make_report, samples
from llm.errors import DataError
from llm.files import beside, sha256, sync, write_atomically, write_json

if TYPE_CHECKING:
    from llm.tokenizer import Tokenizer, TokenizerSpec

SAMPLED_PIECES = 256
PIECES = "pieces"
CLEANED = "cleaned"
FILE_HASHES = "file_hashes.sqlite"


def prepare(
    source: Source,
    spec: "TokenizerSpec",
    shards_dir: Path | str,
    *,
    steps: Mapping[str, AnyStep] | None = None,
    processes: int | None = None,
    executor: Executor | None = None,
    progress: PrepareProgress | None = None,
) -> Corpus:
    """The corpus of `source`, cleaned by `steps`, and `spec` under `shards_dir`, made unless it is there already.

    The result is the same for any number of `processes` (None: as many as pay) of any `executor` (None: processes of
    this machine), and a killed preparation goes on with the pieces that it had finished. Raises ConfigError and
    DataError.
    """
    folder, progress, pipeline = Path(shards_dir), progress or Silent(), Pipeline(steps or {})
    do = _doing(executor, processes)
    progress.stage("Looking at the text")
    plan = _planned(source, pipeline, InputFiles(folder / FILE_HASHES))
    with _writing(folder, plan):
        if corpus := _existing_corpus(source, plan, spec, folder):
            shutil.rmtree(corpus.folder / PIECES, ignore_errors=True)
            return corpus
        plan = _clean(source, plan, pipeline, folder, do, progress)
        tokenizer = _tokenizer([plan], spec, folder / "tokenizers", progress)
        corpus_fingerprint = _fingerprint(plan, tokenizer)
        target = folder / _folder_name(source, corpus_fingerprint)
        with _only_one(target, progress):
            if not (target / INDEX).is_file():
                _Preparation(plan, tokenizer, target, progress).run(
                    source.corpus_name, corpus_fingerprint, do
                )
            shutil.rmtree(target / PIECES, ignore_errors=True)
            return Corpus.open(target)


def shared_tokenizer(
    texts: Sequence[tuple[Source, Mapping[str, AnyStep]]],
    spec: "TokenizerSpec",
    shards_dir: Path | str,
    *,
    processes: int | None = None,
    executor: Executor | None = None,
    progress: PrepareProgress | None = None,
) -> "Tokenizer":
    """The one tokenizer for several sources, each with its steps: trained on as much text of each.

    Raises as `prepare` does, which then makes a corpus of each source with it.
    """
    if not spec.needs_text:
        return spec.build(())
    folder, progress = Path(shards_dir), progress or Silent()
    do, plans = _doing(executor, processes), []
    for source, steps in texts:
        progress.stage("Looking at the text")
        pipeline = Pipeline(steps)
        plan = _planned(source, pipeline, InputFiles(folder / FILE_HASHES))
        with _writing(folder, plan):
            plans.append(_clean(source, plan, pipeline, folder, do, progress))
    with _writing(folder, plans[0]):
        return _tokenizer(plans, spec, folder / "tokenizers", progress)


def _doing(executor: Executor | None, processes: int | None) -> Do:
    how = executor or Processes()
    return lambda job, waiting, n_bytes: how.run(job, waiting, processes, n_bytes)


def find_prepared(
    source: Source,
    spec: "TokenizerSpec",
    shards_dir: Path | str,
    *,
    steps: Mapping[str, AnyStep] | None = None,
) -> tuple[ReadingPlan, Corpus | None]:
    """What `prepare` would begin with, and the corpus where it is there already; no corpus is made."""
    folder = Path(shards_dir)
    plan = _planned(
        source, Pipeline(steps or {}), InputFiles(folder / FILE_HASHES if folder.is_dir() else None)
    )
    return plan, _existing_corpus(source, plan, spec, folder)


def _planned(source: Source, pipeline: Pipeline, files: InputFiles) -> ReadingPlan:
    """The plan for the raw text, known by what the steps will make of it."""
    plan = source.plan(files)
    return replace(plan, fingerprint=cleaned_fingerprint(plan, pipeline)) if pipeline else plan


def _existing_corpus(source: Source, plan: ReadingPlan, spec: "TokenizerSpec", folder: Path) -> Corpus | None:
    from llm.tokenizer import load_tokenizer

    trained = folder / "tokenizers" / _tokenizer_name([plan], spec)
    if spec.needs_text and not trained.is_dir():
        return None
    tokenizer = load_tokenizer(trained) if spec.needs_text else spec.build(())
    target = folder / _folder_name(source, _fingerprint(plan, tokenizer))
    return Corpus.open(target) if (target / INDEX).is_file() else None


def _clean(
    source: Source,
    plan: ReadingPlan,
    pipeline: Pipeline,
    folder: Path,
    do: Do,
    progress: PrepareProgress,
) -> ReadingPlan:
    """The plan for what the steps make of the text, which is written down; the plan itself where there are none."""
    if not pipeline:
        return plan
    target = folder / CLEANED / _folder_name(source, plan.fingerprint)
    with _only_one(target, progress):
        return clean(plan, pipeline, source.validation_share, target, do, progress)


def _fingerprint(plan: ReadingPlan, tokenizer: "Tokenizer") -> str:
    return fingerprint({"format": FORMAT_VERSION, "text": plan.fingerprint, "tokenizer": tokenizer.hash})


def _folder_name(source: Source, corpus_fingerprint: str) -> str:
    return f"{source.corpus_name}-{corpus_fingerprint[:12]}"


def _tokenizer_name(plans: Sequence[ReadingPlan], spec: "TokenizerSpec") -> str:
    prints = [plan.fingerprint for plan in plans]
    text = prints[0] if len(prints) == 1 else prints
    contents = {"sample": MOST_SAMPLE_BYTES, "text": text, "spec": spec.fingerprint()}
    return fingerprint(contents)[:12]


@contextmanager
def _writing(folder: Path, plan: ReadingPlan) -> Iterator[None]:
    """Turn a disk that is full or closed to us into an error that says where, what is needed and what was kept."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise DataError(
                f"{folder} can't be written ({error}): set shards_dir= to another folder."
            ) from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        need = (
            "about as much room as the text"
            if plan.n_bytes is None
            else f"about {plan.n_bytes / 1e6:,.0f} MB"
        )
        raise DataError(
            f"The disk of {folder} is full: {shutil.disk_usage(_existing(folder)).free / 1e6:,.0f} MB are free, and "
            f"preparing this text needs {need} in all, up to four times that if every byte is a token. Make room, or "
            "set shards_dir= to another disk. Pieces that were finished are kept: the same command goes on from them."
        ) from error


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


@contextmanager
def _only_one(target: Path, progress: PrepareProgress) -> Iterator[None]:
    """Keep other preparations of the same thing waiting."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.stage("Waiting for another preparation of the same data")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _tokenizer(
    plans: Sequence[ReadingPlan], spec: "TokenizerSpec", folder: Path, progress: PrepareProgress
) -> "Tokenizer":
    """The tokenizer, trained on training text alone and only once for the same text."""
    from llm.tokenizer import load_tokenizer

    if not spec.needs_text:
        return spec.build(())
    target = folder / _tokenizer_name(plans, spec)
    with _only_one(target, progress):
        if not target.is_dir():
            progress.stage("Training the tokenizer")
            new = beside(target)
            texts = (training_texts(plan, MOST_SAMPLE_BYTES // len(plans)) for plan in plans)
            spec.build(chain.from_iterable(texts)).save(new)
            sync(new)
            new.replace(target)
            sync(folder)
        return load_tokenizer(target)


def training_texts(plan: ReadingPlan, budget: int = MOST_SAMPLE_BYTES) -> Iterator[str]:
    """Text that isn't held out, about `budget` bytes at most, taken evenly from pieces spread over the whole."""
    pieces = plan.pieces[:: -(-len(plan.pieces) // SAMPLED_PIECES)]
    share = budget // len(pieces)
    for piece in pieces:
        left = share
        for part in kept_parts(piece, plan.split, Counts()):
            if left <= 0:
                break
            if not part.held_out:
                left -= len(part.document.data)
                yield part.document.text


class _Preparation:
    """One preparation at work in its folder."""

    def __init__(
        self, plan: ReadingPlan, tokenizer: "Tokenizer", folder: Path, progress: PrepareProgress
    ) -> None:
        self.plan, self.tokenizer, self.folder, self.progress = plan, tokenizer, folder, progress
        self.pieces = [PieceFiles(folder / PIECES, number) for number in range(len(plan.pieces))]

    def run(self, name: str, corpus_fingerprint: str, do: Do) -> None:
        """From text to the index."""
        (self.folder / PIECES).mkdir(parents=True, exist_ok=True)
        for left_over in (self.folder / PIECES).glob(".*.tmp"):
            left_over.unlink(missing_ok=True)
        self.tokenizer.save(self.folder / "tokenizer")
        records = self._encode(do)
        self.progress.stage("Putting the pieces together")
        assembled = assemble(self.folder, self.pieces, self.tokenizer.vocab_size)
        index: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "fingerprint": corpus_fingerprint,
            "tokenizer_hash": self.tokenizer.hash,
            "vocab_size": self.tokenizer.vocab_size,
            "dtype": token_dtype(self.tokenizer.vocab_size).str,
            "streams": {stream: vars(counts) for stream, counts in assembled.streams.items()},
            "files": assembled.files,
        }
        report = make_report(assembled, records, self.plan, self.tokenizer)
        corpus = Corpus(self.folder, index)
        report["samples"] = samples(corpus.train if len(corpus.train) else corpus.validation, self.tokenizer)
        write_json(self.folder / "report.json", report)
        write_atomically(self.folder / "report.html", page(name, report))
        for path in (
            self.folder / "report.json",
            self.folder / "report.html",
            *sorted((self.folder / "tokenizer").iterdir()),
        ):
            entry = {"bytes": path.stat().st_size, "sha256": sha256(path)}
            index["files"][path.relative_to(self.folder).as_posix()] = entry
        write_json(self.folder / INDEX, index)

    def _encode(self, do: Do) -> list[dict[str, Any]]:
        """The records of all pieces, those made that weren't finished before."""
        self.progress.stage("Tokenizing")
        job = _EncodeJob(self.plan, self.pieces, self.folder / "tokenizer")
        job.tokenizer = self.tokenizer
        return finished_records(job, len(self.pieces), do, self.plan.n_bytes, self.progress)


@dataclass
class _EncodeJob:
    """The work on each piece; another process loads the tokenizer itself."""

    plan: ReadingPlan
    pieces: Sequence[PieceFiles]
    tokenizer_folder: Path

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "tokenizer"}

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from llm.tokenizer import load_tokenizer

        return load_tokenizer(self.tokenizer_folder)

    def files(self, number: int) -> PieceFiles:
        """Where a piece's files are."""
        return self.pieces[number]

    def __call__(self, number: int) -> dict[str, Any]:
        return encode_piece(self.plan.pieces[number], self.plan.split, self.tokenizer, self.pieces[number])
