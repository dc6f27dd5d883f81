"""What cleaning costs and finds: MB/s per core of each step, near-duplicates found, real dumps checked.

    python benchmarks/cleaning.py                                   # prints; --write writes benchmarks/cleaning.md
    python benchmarks/cleaning.py --datatrove <its python>          # beside datatrove, installed elsewhere

The real dumps lie in raw/ of the folder LLM_SHARED_DATA (by default ../shared/data). Times are CPU seconds of one
process, the best of three.
"""

import argparse
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

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm.data import prepare
from llm.data.documents import Losses
from llm.data.files.inputs import InputFiles
from llm.data.sources import CommonCrawl, TextFiles, Wikipedia
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


def best(work: Callable[[], object]) -> float:
    """CPU seconds, the best of three."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def documents(source: CommonCrawl | Wikipedia) -> list[str]:
    plan = source.plan(InputFiles())
    return [d.text for piece in plan.pieces for d in piece.documents(Losses()) if d.data]


def articles() -> list[str]:
    return documents(Wikipedia([str(SHARED / "raw/enwiki-pages-articles.xml.bz2")]))


def beside(texts: list[str], python: str | None) -> dict[str, float | str]:
    if python is None:
        return {}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [python, "-c", DATATROVE, file.name], capture_output=True, text=True, check=True, env=environment
        )
    return json.loads(done.stdout.splitlines()[-1])


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


def extraction() -> Iterator[str]:
    raw = SHARED / "raw"
    yield "| source | what | documents | MB read | MB/s per core |"
    yield "|---|---|---|---|---|"
    for what, size, source in (
        ("wikipedia, XML in bzip2", 6.089746, Wikipedia([str(raw / "enwiki-pages-articles.xml.bz2")])),
        ("common_crawl, WARC (HTML)", 1.12, CommonCrawl([str(raw / "iana.warc.gz")])),
    ):
        plan = source.plan(InputFiles())

        def read(plan=plan) -> int:
            return sum(1 for piece in plan.pieces for _ in piece.documents(Losses()))

        count, seconds = read(), best(read)
        yield f"| {what} | unpacked | {count} | {size:.2f} | {size / seconds:.1f} |"


def clean_articles() -> Iterator[str]:
    known: set[str] = set()
    plan, losses = Wikipedia([str(SHARED / "raw/enwiki-pages-articles.xml.bz2")]).plan(InputFiles()), Losses()
    texts = [d.text for piece in plan.pieces for d in piece.documents(losses)]
    left = {pattern: sum(len(re.findall(pattern, text)) for text in texts) for pattern in MARKUP}
    yield f"- Wikipedia: {len(texts)} articles, {dict(losses.counts)}; markup left in all of them: {sum(left.values())}."
    for name in ("iana.warc.gz", "malformed.warc", "common-crawl.warc.gz", "common-crawl.warc.wet.gz"):
        losses = Losses()
        plan = CommonCrawl([str(SHARED / "raw" / name)], main_content=False).plan(InputFiles())
        pages = [d for piece in plan.pieces for d in piece.documents(losses)]
        yield f"- {name}: {len(pages)} pages, {dict(losses.counts)}" + "".join(
            f"; {Path(id_).name}: {why}" for id_, why in losses.cases.get("bad", [])
        )
        if name.startswith("common"):
            words = set(re.findall(r"\w+", pages[0].text))
            known = known or words
            if name.endswith("wet.gz"):
                yield f"- WARC and WET: {len(words & known) / len(words | known):.1%} of all words are in both."


def edited(text: str, share: float, draw: random.Random, vocabulary: list[str]) -> str:
    """The text with a share of its words replaced, left out or followed by another."""
    found = []
    for word in re.findall(r"\S+\s*", text):
        if draw.random() >= share:
            found.append(word)
        else:
            new = draw.choice(vocabulary)
            found += draw.choice([[new], [], [word, new]])
    return "".join(found)


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
        "Reading and extracting": extraction(),
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
