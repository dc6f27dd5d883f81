"""What cleaning costs and finds: MB/s per core of each step, near-duplicates found, real dumps checked.

    python benchmarks/cleaning.py                                   # prints; --write writes benchmarks/cleaning.md
    python benchmarks/cleaning.py --datatrove <its python>          # beside datatrove, installed elsewhere

The real dumps lie in raw/ of the folder LLM_SHARED_DATA (by default ../shared/data). Times are CPU seconds of one
process, the best of three.
"""

import argparse
import gzip
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
from editing import edited
from pyarrow import parquet

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm.data import prepare
from llm.data.documents import LeftOut, Source
from llm.data.files.inputs import InputFiles
from llm.data.sources import CommonCrawl, JsonLines, ParquetFiles, TextFiles, Wikipedia
from llm.data.steps import (
    C4,
    DuplicateLines,
    FineWeb,
    FixText,
    GopherQuality,
    GopherRepetition,
    Language,
    LowerCase,
    NearDuplicates,
    NoSpecialCharacters,
    PlainPunctuation,
)
from llm.tokenizer import ByteSpec

SHARED = Path(os.environ.get("LLM_SHARED_DATA", Path(__file__).parents[2] / "shared/data"))
RAW = SHARED / "raw"
DUMP = str(RAW / "enwiki-pages-articles.xml.bz2")
RESULT = Path(__file__).with_suffix(".md")
STEPS = {
    "FixText": FixText(),
    "Language": Language(["en"]),
    "GopherRepetition": GopherRepetition(),
    "GopherQuality": GopherQuality(),
    "C4": C4(terminal_punctuation=False),
    "FineWeb": FineWeb(),
    "NearDuplicates": NearDuplicates(),
    "LowerCase": LowerCase(),
    "PlainPunctuation": PlainPunctuation(),
    "NoSpecialCharacters": NoSpecialCharacters(),
    "DuplicateLines": DuplicateLines(),
}
MARKUP = [
    r"\{\{",
    r"\}\}",
    r"\[\[",
    r"\]\]",
    "<ref",
    r"\{\|",
    r"\|\}",
    "''",
    r"</?[a-zA-Z][^<>\n]*>",
    r"&[a-z]+;",
]
# Reads a JSON list of texts, and gives CPU seconds for each of datatrove's filters.
DATATROVE = """
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.formatters import FTFYFormatter
texts = json.load(open(sys.argv[1]))
documents = [Document(text, str(n)) for n, text in enumerate(texts)]
steps = {
    "GopherRepetition": GopherRepetitionFilter(language="en").filter,
    "GopherQuality": GopherQualityFilter(language="en").filter,
    "C4": C4QualityFilter(filter_no_terminal_punct=False, language="en").filter,
    "FineWeb": FineWebQualityFilter(language="en").filter,
    "FixText": lambda document, fix=FTFYFormatter(): fix.format(document.text),
}
signature = MinhashDedupSignature("/tmp", config=MinhashConfig(), language="en")
steps["NearDuplicates"] = lambda document: signature.get_signature(signature.get_shingles(document.text))
found = {}
for name, step in steps.items():
    try:
        step(documents[0])
        times = []
        for _ in range(3):
            copies = [Document(text, "0") for text in texts]
            start = time.process_time()
            for document in copies:
                step(document)
            times.append(time.process_time() - start)
        found[name] = min(times)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
# Gives CPU seconds for each of datatrove's readers, over the files of a folder.
READERS = """
import json, sys, time
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers import JsonlReader, ParquetReader, WarcReader
found = {}
for name, kind, pattern, extract in (
    ("jsonl", JsonlReader, "*.jsonl", str),
    ("jsonl, gzip", JsonlReader, "*.jsonl.gz", str),
    ("parquet", ParquetReader, "*.parquet", str),
    ("WET", WarcReader, "*.wet.gz", str),
    ("WARC", WarcReader, "e.warc.gz", Trafilatura().extract),
):
    times = []
    for _ in range(3):
        start = time.process_time()
        texts = [extract(document.text) for document in kind(sys.argv[1], glob_pattern=pattern).run()]
        times.append(time.process_time() - start)
    found[name] = min(times)
print(json.dumps(found))
"""


def best(work: Callable[[], object]) -> float:
    """CPU seconds, the best of three."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def documents(source: Source) -> list[str]:
    plan = source.plan(InputFiles())
    return [d.text for piece in plan.pieces for d in piece.documents(LeftOut()) if d.data]


def articles() -> list[str]:
    return documents(Wikipedia([DUMP]))


def ask(python: str, program: str, argument: str) -> dict[str, float | str]:
    """What a program says, in JSON, that another Python runs."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", program, argument], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def beside(texts: list[str], python: str | None) -> dict[str, float | str]:
    if python is None:
        return {}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        return ask(python, DATATROVE, file.name)


def throughput(texts: list[str], python: str | None) -> Iterator[str]:
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    others = beside(texts, python)
    yield "| step | MB/s per core | datatrove's | ratio |"
    yield "|---|---|---|---|"
    for name, step in STEPS.items():
        call = getattr(step, "marks", step)
        call(texts[0])
        ours = best(lambda call=call: [call(text) for text in texts])
        theirs = others.get(name)
        if isinstance(theirs, float):
            yield f"| {name} | {megabytes / ours:.1f} | {megabytes / theirs:.2f} | {theirs / ours:.1f} |"
        else:
            yield f"| {name} | {megabytes / ours:.1f} | {theirs or ''} | |"


class Reading(NamedTuple):
    """What is read: MB of text or of HTML in it, by which source, and by which reader of datatrove's script."""

    name: str
    megabytes: float
    source: Source
    reader: str | None = None


def readings(texts: list[str], folder: Path) -> list[Reading]:
    """The dumps, and the articles as files of records."""
    texts = texts * 5
    size = sum(len(text.encode()) for text in texts) / 1e6
    lines = "".join(json.dumps({"text": text, "id": str(n)}) + "\n" for n, text in enumerate(texts))
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 6))
    table = pyarrow.table({"text": texts, "id": [str(n) for n in range(len(texts))]})
    parquet.write_table(table, folder / "c.parquet", row_group_size=100)
    page, pages = ((RAW / name).read_bytes() for name in ("common-crawl.warc.wet.gz", "iana.warc.gz"))
    (folder / "d.warc.wet.gz").write_bytes(page * 1000)
    (folder / "e.warc.gz").write_bytes(pages * 5)
    read = [str(path) for path in sorted(folder.iterdir())]
    return [
        Reading("wikipedia, XML in bzip2", 6.089746, Wikipedia([DUMP])),
        Reading("jsonl", size, JsonLines(read[0]), "jsonl"),
        Reading("jsonl, gzip", size, JsonLines(read[1]), "jsonl, gzip"),
        Reading("parquet", size, ParquetFiles(read[2]), "parquet"),
        Reading("common_crawl, WET", 1000 * len(gzip.decompress(page)) / 1e6, CommonCrawl(read[3]), "WET"),
        Reading("common_crawl, WARC (HTML), extracted", 5 * 1.12, CommonCrawl(read[4]), "WARC"),
    ]


def extraction(texts: list[str], python: str | None) -> Iterator[str]:
    yield "| source | documents | MB unpacked | MB/s per core | datatrove's | ratio |"
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        found = readings(texts, Path(folder))
        others = ask(python, READERS, folder) if python else {}
        for name, megabytes, source, reader in found:
            pieces = source.plan(InputFiles()).pieces

            def read(pieces=pieces) -> int:
                return sum(1 for piece in pieces for _ in piece.documents(LeftOut()))

            count, seconds = read(), best(read)
            theirs, speed = others.get(reader), f"{megabytes / seconds:.1f}"
            row = f"| {name} | {count} | {megabytes:.2f} | {speed} |"
            yield f"{row} {megabytes / theirs:.1f} | {theirs / seconds:.1f} |" if theirs else f"{row} | |"


def clean_articles() -> Iterator[str]:
    known: set[str] = set()
    plan, left_out = Wikipedia([DUMP]).plan(InputFiles()), LeftOut()
    texts = [d.text for piece in plan.pieces for d in piece.documents(left_out)]
    left = {pattern: sum(len(re.findall(pattern, text)) for text in texts) for pattern in MARKUP}
    yield f"- Wikipedia: {len(texts)} articles, {dict(left_out.counts)}; markup left in all of them: {sum(left.values())}."
    for name in ("iana.warc.gz", "malformed.warc", "common-crawl.warc.gz", "common-crawl.warc.wet.gz"):
        left_out = LeftOut()
        plan = CommonCrawl([str(RAW / name)], main_content=False).plan(InputFiles())
        pages = [d for piece in plan.pieces for d in piece.documents(left_out)]
        yield f"- {name}: {len(pages)} pages, {dict(left_out.counts)}" + "".join(
            f"; {Path(id_).name}: {why}" for id_, why in left_out.cases.get("bad", [])
        )
        if name.startswith("common"):
            words = set(re.findall(r"\w+", pages[0].text))
            known = known or words
            if name.endswith("wet.gz"):
                yield f"- WARC and WET: {len(words & known) / len(words | known):.1%} of all words are in both."


def near_duplicates(texts: list[str]) -> Iterator[str]:
    step, draw = NearDuplicates(), random.Random(0)
    vocabulary = re.findall(r"\S+\s*", "".join(texts))
    yield "| characters | edited | documents | recall | precision |"
    yield "|---|---|---|---|---|"
    for length in (500, 1000, 3000):
        chunks = [text[at : at + length] for text in texts for at in range(0, len(text) - length, length)]
        chunks = draw.sample(chunks, min(len(chunks), 900))
        originals = np.stack([step.marks(chunk) for chunk in chunks])
        for low, high in ((0.01, 0.2), (0.01, 0.01), (0.05, 0.05), (0.1, 0.1), (0.15, 0.15), (0.2, 0.2)):
            copies = [edited(chunk, draw.uniform(low, high), draw, vocabulary) for chunk in chunks]
            found = step.repeats([originals, np.stack([step.marks(copy) for copy in copies])])
            pairs = set(zip(found.numbers.tolist(), found.of.tolist(), strict=True))
            right = sum((len(chunks) + n, n) in pairs for n in range(len(chunks)))
            share = f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"
            yield f"| {length} | {share} | {len(chunks)} | {right / len(chunks):.4f} | {right / len(pairs):.4f} |"


def _cpu() -> float:
    """CPU seconds so far, of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def whole(texts: list[str], copies: int) -> Iterator[str]:
    """The whole of data.steps over text files, by one process and by two."""
    seconds, cpu = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for copy in range(copies):
            for number, text in enumerate(texts):
                path = Path(folder, "text", f"{copy:04d}-{number:04d}.txt")
                path.parent.mkdir(exist_ok=True)
                path.write_text(text.replace(" the ", f" the{copy} ").replace(" of ", f" of{copy} "))
        size = sum(path.stat().st_size for path in Path(folder, "text").iterdir()) / 1e6
        steps = {name: STEPS[name] for name in list(STEPS)[:7]}
        for processes in (1, 2):
            start, used = time.perf_counter(), _cpu()
            source = TextFiles([f"{folder}/text/*.txt"])
            shards = Path(folder, f"shards{processes}")
            prepare(source, ByteSpec(), shards, steps=steps, processes=processes)
            seconds[processes], cpu[processes] = time.perf_counter() - start, _cpu() - used
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    yield "| processes | text | seconds | CPU seconds | MB/s | MB/s per CPU second |"
    yield "|---|---|---|---|---|---|"
    for processes, took in seconds.items():
        yield (
            f"| {processes} | {size:.1f} MB | {took:.1f} | {cpu[processes]:.1f} | {size / took:.2f} | "
            f"{size / cpu[processes]:.2f} |"
        )
    yield f"\nTwo processes are {seconds[1] / seconds[2]:.2f} times as fast as one, at a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. Peak memory: {max(peaks):.0f} MB in one process."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datatrove", help="the Python of an environment with datatrove[processing]")
    parser.add_argument("--copies", type=int, default=12, help="times the dump, for the whole")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    texts = articles()
    parts = {
        "Real dumps": clean_articles(),
        "Reading and extracting": extraction(texts, args.datatrove),
        "Steps": throughput(texts, args.datatrove),
        "Near-duplicates": near_duplicates(texts),
        "All of data=common_crawl's steps, with reading, byte tokens and shards": whole(texts, args.copies),
    }
    command = f"python benchmarks/cleaning.py --copies {args.copies} --write --datatrove <its python>"
    head = f"# Cleaning\n\n    {command}\n\nPython {platform.python_version()}, {os.cpu_count()} cores. Steps are measured on the articles of the dump; datatrove takes its words from spaCy."
    page = [head]
    for title, lines in parts.items():
        page.append(f"## {title}\n\n" + "\n".join(lines))
        print(page[-1], "\n", flush=True)
    if args.write:
        RESULT.write_text("\n\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
