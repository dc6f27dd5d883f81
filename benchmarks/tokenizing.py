"""Megabytes a second on one core: our tokenizers beside the engines, on text that they were not trained on, and the
whole of `llm prepare`.

    python -m venv .venv-tiktoken && .venv-tiktoken/bin/pip install tiktoken numpy
    python benchmarks/tokenizing.py --tiktoken-python .venv-tiktoken/bin/python
    python benchmarks/tokenizing.py --train 'mine/a/**/*.txt' --text prose='mine/b/*.txt' --text code='mine/c/*.py'

Without words of its own it trains on Python's standard library and encodes the Python files and the documents of the
installed packages. Each turn is a process of its own: it encodes every set of texts once as new (first) and once more
(again), in batches of 4 MB as `llm prepare` does. Time is the processor's, so that a busy machine changes it little.
The bar is 12 MB/s, of new text and of `llm prepare` from its start to its end. Linux and macOS.
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import re
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from glob import iglob
from pathlib import Path
from typing import Any

from timing import Figures, Result, give_up, interleave, machine, measured, notes, say, table

BAR_MBS = 12
BATCH_BYTES = 1 << 22
SMALLEST_BYTES, LONGEST_BYTES = 200, 1 << 14
TRAINED_ON = "train"
UNIGRAM_SAMPLE_BYTES = 8_000_000
REFERENCE = "SentencePiece BPE"

Encode = Callable[[list[str]], Sequence[Sequence[int]]]


def installed(*endings: str) -> list[str]:
    folder = sysconfig.get_path("purelib")
    return [f"{folder}/**/*{ending}" for ending in endings]


SETS = {"Python files": installed(".py"), "documents": installed(".md", ".rst", ".txt")}
# Left out of the Python files: copies of code that others hold too, whose words a cache knows already.
VENDORED = re.compile(r"[/_]vendor(ed)?[/_]")


def texts_of(patterns: Iterable[str], n_bytes: float) -> Iterator[str]:
    """The distinct UTF-8 texts that match, up to `n_bytes` of them, in the order of their hashed names."""
    paths = sorted(
        {path for pattern in patterns for path in iglob(os.path.expanduser(pattern), recursive=True)}
    )
    seen: set[bytes] = set()
    for path in sorted(paths, key=lambda path: hashed(path.encode())):
        data = b"" if VENDORED.search(path) or not os.path.isfile(path) else Path(path).read_bytes()
        if len(data) < SMALLEST_BYTES or b"\0" in data or (digest := hashed(data)) in seen:
            continue
        seen.add(digest)
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        n_bytes -= len(data)
        if n_bytes <= 0:
            return


def cut(text: str) -> Iterator[str]:
    """A text in stretches of whole lines, for SentencePiece BPE is slow on longer ones."""
    from llm.data.files.cutting import chunks

    return (part.decode() for part in chunks(text.encode(), LONGEST_BYTES))


def hashed(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def standard_library() -> list[str]:
    from llm.data.sources.stdlib import stdlib_files

    return [str(path) for _, path in stdlib_files()]


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    n_bytes = 0
    for text in texts:
        batch.append(text)
        n_bytes += len(text)
        if n_bytes >= BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def train(work: Path, vocab_size: int) -> None:
    """Train the three kinds on the same text: ours, which are SentencePiece's, and a byte-level BPE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from llm.tokenizer import SentencePieceSpec

    texts = json.loads((work / f"{TRAINED_ON}.json").read_text())
    SentencePieceSpec("bpe", vocab_size).build(texts).save(work / f"bpe{vocab_size}")
    spec = SentencePieceSpec("unigram", vocab_size, sample_bytes=UNIGRAM_SAMPLE_BYTES)
    spec.build(texts).save(work / f"unigram{vocab_size}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    backend.save(str(work / f"byte_level{vocab_size}.json"))


def ours(kind: str, work: Path, vocab_size: int) -> Encode:
    from llm.tokenizer import load_tokenizer

    return load_tokenizer(work / f"{kind}{vocab_size}").encode_batch


def sentencepiece(kind: str, work: Path, vocab_size: int) -> Encode:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(work / f"{kind}{vocab_size}/sentencepiece.model"))
    return functools.partial(model.encode, num_threads=1)


def huggingface(work: Path, vocab_size: int) -> Encode:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(work / f"byte_level{vocab_size}.json"))
    return lambda texts: [encoding.ids for encoding in backend.encode_batch_fast(texts)]


def tiktoken(work: Path, vocab_size: int) -> Encode:
    """tiktoken's engine with the merges of the byte-level BPE, whose ids and pattern it takes over."""
    try:
        import tiktoken as engine
        from tiktoken_ext.openai_public import r50k_pat_str
    except ImportError:
        give_up("tiktoken is not installed: --tiktoken-python")
    pieces = json.loads((work / f"byte_level{vocab_size}.json").read_text())["model"]["vocab"]
    letters = byte_letters()
    ranks = {bytes(letters[letter] for letter in piece): id_ for piece, id_ in pieces.items()}
    encoding = engine.Encoding("trained", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: [encoding.encode_ordinary(text) for text in texts]


def byte_letters() -> dict[str, int]:
    """The byte for each letter of a byte-level vocabulary: itself where it can be printed, else the next from U+0100."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + at): byte for at, byte in enumerate(hidden)}


ENGINES: dict[str, Callable[[Path, int], Encode]] = {
    "ours, BPE": functools.partial(ours, "bpe"),
    "ours, unigram": functools.partial(ours, "unigram"),
    REFERENCE: functools.partial(sentencepiece, "bpe"),
    "SentencePiece unigram": functools.partial(sentencepiece, "unigram"),
    "tokenizers, byte-level BPE": huggingface,
    "tiktoken, byte-level BPE": tiktoken,
}


def time_engine(name: str, work: Path, vocab_size: int, sets: Sequence[str]) -> Figures:
    """CPU seconds a megabyte of each set, new to a tokenizer that was just loaded and again, and bytes a token."""
    figures: Figures = {}
    for one in sets:
        texts = json.loads((work / f"{one}.json").read_text())
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        encode = ENGINES[name](work, vocab_size)
        encode(["One text, so that everything is loaded."])
        for when in ("first", "again"):
            n_tokens, began = 0, time.process_time()
            for batch in batches(texts):
                n_tokens += sum(map(len, encode(batch)))
            figures[f"{one}, {when}"] = (time.process_time() - began) / megabytes
        figures[f"{one}, bytes a token"] = 1e6 * megabytes / n_tokens
    return figures


def differing(work: Path, vocab_size: int, sets: Sequence[str]) -> Figures:
    """How many texts have ids other than SentencePiece's own, which reads U+2581 as a space: such texts are left out."""
    import numpy as np

    mine, theirs = ours("bpe", work, vocab_size), sentencepiece("bpe", work, vocab_size)
    found = Counter(different=0, texts=0)
    for one in sets:
        texts = [text for text in json.loads((work / f"{one}.json").read_text()) if "\u2581" not in text]
        found["texts"] += len(texts)
        for batch in batches(texts):
            found["different"] += sum(
                not np.array_equal(a, b) for a, b in zip(mine(batch), theirs(batch), strict=True)
            )
    return {key: float(value) for key, value in found.items()}


class Stages:
    """Takes the CPU time of each stage of a preparation."""

    def __init__(self) -> None:
        self.began = [("Starting (imports)", 0.0)]

    def stage(self, name: str) -> None:
        self.began.append((name, time.process_time()))

    def update(self, documents: int, n_bytes: int, total_bytes: int | None) -> None:
        pass

    def seconds(self) -> Figures:
        ends = [*self.began[1:], ("", time.process_time())]
        return {name: end - began for (name, began), (_, end) in zip(self.began, ends, strict=True)}


def timed(owner: Any, name: str, spent: Counter[str], title: str) -> None:
    """Have `spent` hold the CPU seconds in a method."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return method(*args, **kwargs)
        finally:
            spent[title] += time.process_time() - began

    setattr(owner, name, wrapper)


def prepare_once(work: Path, vocab_size: int) -> Figures:
    """CPU seconds of a preparation by one process, by stage, and what tokenizing is made of."""
    from llm.data import prepare
    from llm.data.sources import TextFiles
    from llm.tokenizer import SentencePieceSpec, SentencePieceTokenizer

    spent: Counter[str] = Counter()
    timed(SentencePieceTokenizer, "_encode_words", spent, "- SentencePiece, new words")
    timed(SentencePieceTokenizer, "encode_batch", spent, "- cutting, look-up")
    stages, spec = Stages(), SentencePieceSpec("bpe", vocab_size)
    with tempfile.TemporaryDirectory(dir=work) as shards:
        corpus = prepare(TextFiles([f"{work}/files/*.txt"]), spec, shards, processes=1, progress=stages)
        figures = stages.seconds()
        total, megabytes = sum(figures.values()), corpus.report["bytes"] / 1e6
    spent["- cutting, look-up"] -= spent["- SentencePiece, new words"]
    spent["- reading, hashing, splitting, writing"] = figures["Tokenizing"] - spent.total()
    return {"MB": megabytes, "all": total, **figures, **spent}


def write_texts(work: Path, args: argparse.Namespace) -> list[str]:
    """Write the texts to train on, the sets and the files that are prepared; the names of the sets."""
    patterns = {name: paths.split(",") for name, paths in (one.split("=", 1) for one in args.text)} or SETS
    chosen = {TRAINED_ON: args.train or standard_library(), **patterns}
    sizes = {name: 1e6 * (args.train_megabytes if name == TRAINED_ON else args.megabytes) for name in chosen}
    (work / "files").mkdir()
    for name, paths in chosen.items():
        texts = list(texts_of(paths, sizes[name]))
        (work / f"{name}.json").write_text(json.dumps(list(itertools.chain(*map(cut, texts)))))
        for number, text in enumerate(texts if name != TRAINED_ON else ()):
            (work / f"files/{name}{number}.txt").write_text(text, encoding="utf-8")
    return list(patterns)


def child(work: Path, vocab_size: int, words: Sequence[str], python: str = sys.executable) -> Figures:
    return measured([python, __file__, "--child", work, str(vocab_size), *words], 1)


def do_child(work: Path, vocab_size: int, what: str, *words: str) -> None:
    """What the measured processes do."""
    if what == "train":
        train(work, vocab_size)
        say({})
    elif what == "prepare":
        say(prepare_once(work, vocab_size))
    elif what == "compare":
        say(differing(work, vocab_size, words))
    else:
        say(time_engine(what, work, vocab_size, words))


def speed(one: Result, key: str) -> str:
    return f"{1 / one.median(key):.1f}"


def engine_rows(results: list[Result], sets: Sequence[str]) -> Iterator[list[str]]:
    reference = next(one for one in results if one.name == REFERENCE)
    for one in (one for one in results if one.rounds):
        for name in sets:
            key = f"{name}, first"
            pairs = [a[key] / b[key] for a, b in zip(reference.rounds, one.rounds, strict=True)]
            ratio = sorted(pairs)[len(pairs) // 2]
            figures = speed(one, key), speed(one, f"{name}, again"), f"{ratio:.2f}"
            yield [one.name, name, *figures, f"{one.median(f'{name}, bytes a token'):.2f}"]


def prepare_rows(one: Result) -> Iterator[list[str]]:
    megabytes = one.median("MB")
    for key in (key for key in one.rounds[0] if key not in ("MB", "seconds", "peak_bytes")):
        seconds = one.median(key)
        yield [
            key,
            f"{seconds:.2f}",
            f"{1e3 * seconds / megabytes:.1f}",
            f"{100 * seconds / one.median('all'):.0f}%",
        ]


def show(vocab_size: int, work: Path, sets: Sequence[str], args: argparse.Namespace) -> list[float]:
    """Measure and print one size of vocabulary; the speeds that the bar is for, in MB/s."""
    child(work, vocab_size, ["train"])
    pythons = {"tiktoken, byte-level BPE": args.tiktoken_python}
    turns = {
        name: functools.partial(child, work, vocab_size, [name, *sets], pythons.get(name, sys.executable))
        for name in ENGINES
    }
    turns["prepare"] = functools.partial(child, work, vocab_size, ["prepare"])
    *results, prepared = interleave(turns, args.rounds)
    compared = child(work, vocab_size, ["compare", *sets])
    header = ["", "text", "MB/s, first", "MB/s, again", f"first, over {REFERENCE}", "bytes a token"]
    print(f"\n## {vocab_size:,} pieces\n\n{table(header, engine_rows(results, sets))}\n{notes(results)}")
    print(
        f"Texts whose ids are not those of {REFERENCE}: {compared['different']:.0f} of {compared['texts']:,.0f}.\n"
    )
    whole = prepared.median("MB") / prepared.median("all")
    print(f"`llm prepare`, one process, {prepared.median('MB'):,.0f} MB: {whole:.1f} MB/s.\n")
    print(table(["", "CPU seconds", "ms a MB", "share"], prepare_rows(prepared)), flush=True)
    return [whole, *(1 / results[0].median(f"{name}, first") for name in sets)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, choices=[1], default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab-sizes", type=int, nargs="+", default=[4096, 32000])
    parser.add_argument("--text", action="append", default=[], help="name=pattern,pattern: a set of texts")
    parser.add_argument("--train", nargs="+", help="patterns of the texts to train on")
    parser.add_argument("--megabytes", type=float, default=100, help="of each set, at most")
    parser.add_argument("--train-megabytes", type=float, default=20)
    parser.add_argument(
        "--tiktoken-python", default=sys.executable, help="of an environment with tiktoken and numpy"
    )
    parser.add_argument("--quick", action="store_true", help="little text, once: whether it works")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        work, vocab_size, *words = args.child
        do_child(Path(work), int(vocab_size), *words)
        return 0
    if args.quick:
        args.rounds, args.vocab_sizes, args.megabytes, args.train_megabytes = 1, [1000], 0.5, 0.5
    print(machine(1))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sets = write_texts(work, args)
        speeds = list(itertools.chain(*(show(size, work, sets, args) for size in args.vocab_sizes)))
    return int(not args.quick and min(speeds) < BAR_MBS)


if __name__ == "__main__":
    raise SystemExit(main())
