"""How fast, and in how much memory, several gigabytes of text become shards, by one process and by two.

    python benchmarks/prepare_5gb.py                    # 5 GB: writes benchmarks/prepare_5gb.md
    python benchmarks/prepare_5gb.py --gigabytes 0.1    # a quick look: prints only

The text is Python's standard library over and over, each copy with lines of its own so that no document
repeats another: half of it in files as they are, half in one single file. Linux only (memory is read from /proc).
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm.data import prepare
from llm.data.sources import TextFiles
from llm.data.sources.stdlib import stdlib_files
from llm.tokenizer import SentencePieceSpec

RESULT = Path(__file__).with_suffix(".md")
SAMPLE_SECONDS = 0.05


def varied_texts() -> Iterator[str]:
    """The library's files, endlessly, a numbered line in front of every hundredth line."""
    texts = [path.read_text(encoding="utf-8") for _, path in stdlib_files()]
    for copy in count():
        for text in filter(None, texts):
            lines = text.splitlines(keepends=True)
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

    def seconds(self) -> dict[str, float]:
        ends = [began for _, began in islice(self.began, 1, None)] + [time.perf_counter()]
        return {name: end - began for (name, began), end in zip(self.began, ends, strict=True)}


def prepare_once(text: Path, shards: Path, processes: int) -> None:
    """What the measured process does."""
    stages = Stages()
    spec = SentencePieceSpec("bpe", vocab_size=4096)
    corpus = prepare(TextFiles([f"{text}/**/*.txt"]), spec, shards, processes=processes, progress=stages)
    report = {key: corpus.report[key] for key in ("documents", "bytes", "tokens", "duplicates_dropped")}
    print(json.dumps({"seconds": stages.seconds(), **report}))


def resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold now."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * 4096 + sum(resident(int(child)) for child in children)


def measure(text: Path, processes: int) -> dict:
    """One preparation in a process of its own: seconds, counts, and peak memory over all its processes."""
    with tempfile.TemporaryDirectory(dir=text.parent) as shards:
        command = [sys.executable, __file__, "--child", str(text), shards, str(processes)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peak = 0
        try:
            while child.poll() is None:
                peak = max(peak, resident(child.pid))
                time.sleep(SAMPLE_SECONDS)
            output = child.communicate()[0]
        finally:
            child.kill()
        if child.returncode:
            raise SystemExit(f"The preparation ended with {child.returncode}.")
    return {"processes": processes, "peak": peak, **json.loads(output.splitlines()[-1])}


def table(results: list[dict]) -> str:
    """The results as Markdown."""
    rows = [
        "| processes | text | documents | seconds | MB/s | MB/s tokenizing | peak memory, all processes |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for result in results:
        seconds, megabytes = sum(result["seconds"].values()), result["bytes"] / 1e6
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
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--folder", type=Path, help="where to put the text for the time being (default: the system's)"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        text, shards, processes = arguments.child
        prepare_once(Path(text), Path(shards), int(processes))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        text = Path(folder) / "text"
        write_text(text, int(arguments.gigabytes * 1e9))
        shown = table([measure(text, processes) for processes in arguments.processes])
    print(shown)
    if arguments.gigabytes >= 5:
        command = "python benchmarks/prepare_5gb.py" + "".join(f" {argument}" for argument in sys.argv[1:])
        title = "# Preparing 5 GB of text\n\nBPE with 4,096 pieces, trained in each run."
        RESULT.write_text(
            f"{title} Half of the text is one file.\n\n    {command}\n\n{machine()}.\n\n{shown}\n"
        )


if __name__ == "__main__":
    main()
