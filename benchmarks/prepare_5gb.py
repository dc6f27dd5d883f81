"""How fast, and in how much memory, several gigabytes of text become shards, by one process and by two.

    python benchmarks/prepare_5gb.py --write            # 5 GB: writes benchmarks/prepare_5gb.md
    python benchmarks/prepare_5gb.py --gigabytes 0.1    # a quick look: prints only
    python benchmarks/prepare_5gb.py --steps --write    # with all that cleans: writes benchmarks/prepare_5gb_steps.md
    python benchmarks/prepare_5gb.py --steps --gigabytes 0.07 0.14 --pieces 32    # how memory grows with the text alone

The steps are set so that each sees all of the text and leaves it in, but for lines that came before. `--pieces` makes
pieces of so many MiB whatever there is of text; of 0.5 GB and more they have 32. The text is Python's standard library
over and over, each copy with lines of its own so that no document repeats another: half of it in files as they are, half
in one single file. Linux only (memory is read from /proc).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm.data import prepare
from llm.data.files import cutting
from llm.data.sources import TextFiles
from llm.data.sources.stdlib import stdlib_files
from llm.data.steps import (
    C4,
    Contamination,
    DuplicateLines,
    FineWeb,
    FixText,
    GopherQuality,
    GopherRepetition,
    Language,
    Length,
    NearDuplicates,
)
from llm.tokenizer import SentencePieceSpec

RESULT = Path(__file__).with_suffix(".md")
WITH_STEPS = RESULT.with_stem(f"{RESULT.stem}_steps")
# Each look takes some milliseconds of a core, which a second process would have used.
SAMPLE_SECONDS = 0.25


def varied_texts() -> Iterator[str]:
    """The library's files, endlessly, a numbered line in front of every hundredth line."""
    texts = [path.read_text(encoding="utf-8") for _, path in stdlib_files()]
    for copy in count():
        for text in filter(None, texts):
            # C4's rules leave out what has a curly bracket.
            lines = text.replace("{", "(").splitlines(keepends=True)
            marked = [
                f"# copy {copy} line {at}\n" + "".join(lines[at : at + 100])
                for at in range(0, len(lines), 100)
            ]
            yield "".join(marked)


def write_text(folder: Path, n_bytes: int) -> None:
    """Half of `n_bytes` as files of a document each, the other half as one file."""
    texts = varied_texts()
    for number, text in enumerate(_worth(texts, n_bytes // 2)):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with (folder / "whole.txt").open("w", encoding="utf-8") as file:
        file.writelines(_worth(texts, n_bytes // 2))


def _worth(texts: Iterator[str], n_bytes: int) -> Iterator[str]:
    while n_bytes > 0:
        text = next(texts)
        n_bytes -= len(text.encode())
        yield text


class Stages:
    """Takes the time of each stage."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []

    def stage(self, name: str) -> None:
        self.began.append((name, time.perf_counter()))

    def update(self, documents: int, n_bytes: int, total_bytes: int | None) -> None:
        pass

    def keeping(self, share: float) -> None:
        pass

    def seconds(self) -> dict[str, float]:
        ends = [began for _, began in islice(self.began, 1, None)] + [time.perf_counter()]
        return {name: end - began for (name, began), end in zip(self.began, ends, strict=True)}


def all_steps() -> dict[str, Any]:
    """All that cleans, but for what normalises; no rule leaves a document out."""
    everything = 1e9
    return {
        "fix_text": FixText(),
        "language": Language(),
        "length": Length(min_words=1),
        "gopher_repetition": GopherRepetition(1.0, 1.0, 1.0, 1.0, (1.0,) * 3, (1.0,) * 6),
        "gopher_quality": GopherQuality(
            1, int(everything), 0.0, everything, everything, everything, everything, 0.0, 0
        ),
        "c4": C4(terminal_punctuation=False, min_words_in_line=1, max_word_length=1 << 30, min_sentences=0),
        "fineweb": FineWeb(-1.0, everything, everything),
        "overlap": Contamination([__file__]),
        "near_duplicates": NearDuplicates(threshold=1.0),
        "lines": DuplicateLines(),
    }


def prepare_once(text: Path, shards: Path, processes: int, steps: bool, pieces: int) -> None:
    """What the measured process does."""
    if pieces:
        cutting.MIN_PIECE_BYTES = cutting.MAX_PIECE_BYTES = pieces << 20
    stages = Stages()
    spec = SentencePieceSpec("bpe", vocab_size=4096)
    how = {"steps": all_steps() if steps else {}, "processes": processes, "progress": stages}
    corpus = prepare(TextFiles([f"{text}/**/*.txt"]), spec, shards, **how)
    report = {key: corpus.report[key] for key in ("documents", "bytes", "tokens", "duplicates_dropped")}
    print(json.dumps({"seconds": stages.seconds(), **report}))


def held(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold now, what several share counted once (PSS)."""
    try:
        shares = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    kilobytes = sum(int(line.split()[1]) for line in shares if line.startswith("Pss:"))
    return (kilobytes << 10) + sum(held(int(child)) for child in children)


def measure(text: Path, processes: int, steps: bool, pieces: int) -> dict:
    """One preparation in a process of its own: seconds, counts, and peak memory over all its processes."""
    with tempfile.TemporaryDirectory(dir=text.parent) as shards:
        how = [str(processes), str(int(steps)), str(pieces)]
        command = [sys.executable, __file__, "--child", str(text), shards, *how]
        size = sum(path.stat().st_size for path in text.rglob("*.txt"))
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peak = 0
        try:
            while child.poll() is None:
                peak = max(peak, held(child.pid))
                time.sleep(SAMPLE_SECONDS)
            output = child.communicate()[0]
        finally:
            child.kill()
        if child.returncode:
            raise SystemExit(f"The preparation ended with {child.returncode}.")
    return {"processes": processes, "peak": peak, "read": size, **json.loads(output.splitlines()[-1])}


def table(results: list[dict]) -> str:
    """The results as Markdown."""
    rows = [
        "| processes | text | documents | seconds | MB/s | MB/s tokenizing | peak memory, all processes |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for result in results:
        seconds, megabytes = sum(result["seconds"].values()), result["read"] / 1e6
        rows.append(
            f"| {result['processes']} | {megabytes / 1e3:.2f} GB | {result['documents']:,} | {seconds:.0f} | "
            f"{megabytes / seconds:.2f} | {megabytes / result['seconds']['Tokenizing']:.2f} | {result['peak'] / 1e6:.0f} MB |"
        )
    stages = [
        f"- {result['processes']} process(es): "
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
        for result in results
    ]
    return "\n".join([*rows, "", "By stage:", "", *stages])


def machine() -> str:
    """The processor and the Python that were measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0] if models else platform.processor()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[5.0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", action="store_true", help="clean the text before it is tokenized")
    parser.add_argument(
        "--pieces", type=int, default=0, help="MiB of a piece (default: as the text's size has it)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to put the text for the time being (default: the system's)"
    )
    parser.add_argument("--write", action="store_true", help="write the page")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        text, shards, *how = arguments.child
        processes, steps, pieces = map(int, how)
        prepare_once(Path(text), Path(shards), processes, bool(steps), pieces)
        return
    results = []
    for gigabytes in arguments.gigabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            text = Path(folder) / "text"
            write_text(text, int(gigabytes * 1e9))
            results += [
                measure(text, processes, arguments.steps, arguments.pieces)
                for processes in arguments.processes
            ]
    shown = table(results)
    print(shown)
    if arguments.write:
        command = "python benchmarks/prepare_5gb.py" + "".join(f" {argument}" for argument in sys.argv[1:])
        title = "# Preparing 5 GB of text\n\nBPE with 4,096 pieces, trained in each run."
        if arguments.steps:
            title = f"# Cleaning text of several sizes\n\nAll steps that clean, then BPE with 4,096 pieces. Load {os.getloadavg()[0]:.0f}."
        (WITH_STEPS if arguments.steps else RESULT).write_text(
            f"{title} Half of the text is one file.\n\n    {command}\n\n{machine()}.\n\n{shown}\n"
        )


if __name__ == "__main__":
    main()
