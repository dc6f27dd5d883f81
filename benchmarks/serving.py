"""`llm serve` under load beside `transformers serve`: tokens a second, time to the first token and between tokens.

    python benchmarks/serving.py
    python benchmarks/serving.py --precisions 32-true bf16-true int8
    python benchmarks/serving.py --requests 2000 --new-tokens 8

Both serve one folder, GPT-2's shape with random weights, on the same number of threads, and take turns. Each of 1, 4,
16 and 64 clients asks /v1/completions for streamed greedy texts of one length, one after the other. Which of theirs is
faster, with continuous batching or without, is for `--theirs` to say. Random weights give an end of text as rarely as
any other of 50,257 tokens; what came is counted, not what was asked for. The CPU time of a server's process, for each
token, says what it costs where the machine does other things too.

With `--requests` ours alone gets so many, 16 at a time, and says what memory it holds after every tenth of them; the exit
code is 1 where one failed, or where the second half took more than 5% more than the first.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import tokenizers
from decoding import GPT2, TINY
from safetensors.torch import save_file
from timing import ROOT, Figures, Result, interleave, machine, paired_ratio, table

from llm.hub import to_huggingface
from llm.model import ModelConfig, Transformer, init_weights

END = "<|endoftext|>"
STARTING = 180.0  # seconds
HEADER = [
    "",
    "streams",
    "tokens/s",
    "tokens/CPU s",
    "first token p50, ms",
    "p99",
    "between tokens p50, ms",
    "p99",
    "ratio",
    "ratio by CPU",
]


class Answer(NamedTuple):
    """When a request was sent, and when each of its pieces came."""

    sent: float
    came: list[float]


def write_model(folder: Path, config: ModelConfig) -> None:
    """A Hugging Face folder: random weights, and a tokenizer whose every id is a text."""
    model = Transformer(config)
    init_weights(model, 0)
    tensors, keys = to_huggingface(model, config, model_type="gpt2", end_of_text=config.vocabulary - 1)
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({**keys, "architectures": ["GPT2LMHeadModel"]}))
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())[: config.vocabulary - 1]
    words = [f"w{number}" for number in range(len(letters), config.vocabulary - 1)]
    vocabulary = {piece: id_ for id_, piece in enumerate([*letters, *words, END])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "bos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def commands(folder: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    """How each contestant is started, but for its port."""
    ours = [sys.executable, "-m", "llm", "serve", f"run={folder}", f"max_batch_size={max(args.streams)}"]
    found = {
        f"llm serve, {precision}": [*ours, f"precision={precision}", "port="] for precision in args.precisions
    }
    theirs = [args.transformers, "serve", str(folder), "--device=cpu", *args.theirs, "--port="]
    return {**found, "transformers serve": theirs}


@contextlib.contextmanager
def served(command: list[str], threads: int) -> Iterator[tuple[str, int]]:
    """The address of a server that answers, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"
    }  # fmt: skip
    with tempfile.TemporaryFile() as log:
        line = [*command[:-1], f"{command[-1]}{port}"]
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + STARTING
            while not answers(address):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(
                        f"{command[0]} did not start:\n{log.read().decode(errors='replace')[-3000:]}"
                    )
                time.sleep(0.2)
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(30)


def answers(address: str) -> bool:
    """Whether a server is there."""
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


async def ask(client: httpx.AsyncClient, body: dict[str, object]) -> Answer:
    """One streamed text."""
    sent, came = time.perf_counter(), []
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {(await response.aread())[:500]!r}")
        async for line in response.aiter_lines():
            if (
                line.startswith("data: {")
                and (choices := json.loads(line[6:])["choices"])
                and choices[0].get("text")
            ):
                came.append(time.perf_counter())
    return Answer(sent, came)


async def load(address: str, model: str, streams: int, args: argparse.Namespace) -> list[Answer]:
    """What `streams` clients get who each ask several times."""

    async def client(number: int, http: httpx.AsyncClient) -> list[Answer]:
        return [
            await ask(
                http,
                {
                    "model": model,
                    "prompt": f"{number} {turn} " * args.prompt_words,
                    "max_tokens": args.new_tokens,
                    "temperature": 0,
                    "stream": True,
                },
            )
            for turn in range(args.turns)
        ]

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as http:
        found = await asyncio.gather(*(client(number, http) for number in range(streams)))
    return [answer for answers in found for answer in answers]


def turn(command: list[str], folder: Path, streams: int, args: argparse.Namespace) -> Figures:
    """Start a server, warm it up, and load it."""
    with served(command, args.threads) as (address, process):
        model = folder.name if "llm" in command else str(folder)
        asyncio.run(load(address, model, 1, argparse.Namespace(**{**vars(args), "turns": 1})))
        began, spent = time.perf_counter(), cpu_seconds(process)
        found = asyncio.run(load(address, model, streams, args))
        seconds, spent = time.perf_counter() - began, cpu_seconds(process) - spent
    first = [answer.came[0] - answer.sent for answer in found]
    between = [b - a for answer in found for a, b in zip(answer.came, answer.came[1:], strict=False)]
    return {
        "tokens_per_second": sum(len(answer.came) for answer in found) / seconds,
        "tokens_per_cpu_second": sum(len(answer.came) for answer in found) / spent,
        **{f"first_p{share}": 1000 * percentile(first, share) for share in (50, 99)},
        **{f"between_p{share}": 1000 * percentile(between, share) for share in (50, 99)},
    }


def cpu_seconds(process: int) -> float:
    """The CPU time of a process so far, in user and system mode, all its threads together."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """The MiB of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def endure(command: list[str], folder: Path, args: argparse.Namespace) -> int:
    """Send many requests, and print what memory the server holds meanwhile; the exit code."""
    held = []
    with served(command, args.threads) as (address, process):
        for number in range(10):
            share = argparse.Namespace(**{**vars(args), "turns": args.requests // 160})
            asyncio.run(load(address, folder.name, 16, share))
            held.append(resident(process))
            print(f"{(number + 1) * args.requests // 10:>6} requests: {held[-1]:,.1f} MiB", flush=True)
    print(f"{machine(args.threads)} No request failed.")
    return int(held[9] - held[4] > 0.05 * held[4])


def percentile(values: list[float], share: int) -> float:
    """The value that `share` percent do not exceed."""
    return (
        statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]
    )


def row(streams: int, result: Result, reference: Result) -> list[object]:
    """A contestant's line in the table."""
    keys = (
        "tokens_per_second",
        "tokens_per_cpu_second",
        "first_p50",
        "first_p99",
        "between_p50",
        "between_p99",
    )
    figures = [f"{result.median(key):,.1f}" for key in keys]
    ratios = [f"{paired_ratio(result, reference, key):.2f}" for key in keys[:2]]
    return [result.name, streams, *figures, *ratios]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--turns", type=int, default=3, help="texts that each client asks for")
    parser.add_argument("--prompt-words", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--precisions", nargs="+", default=["32-true"], help="of ours")
    parser.add_argument("--requests", type=int, help="so many to ours alone, for its memory")
    parser.add_argument(
        "--transformers",
        default=str(Path(sys.executable).with_name("transformers")),
        help="their command, where it has an environment of its own",
    )
    parser.add_argument(
        "--theirs", nargs="*", default=["--continuous-batching"], help="words for transformers serve"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of a tiny shape, ours alone: whether it works"
    )
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.streams, args.turns, args.new_tokens = 1, [1, 4], 1, 8
    return args


def main() -> int:
    args = arguments()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "gpt2"
        folder.mkdir()
        write_model(folder, TINY if args.quick else GPT2)
        contestants = commands(folder, args)
        if args.quick:
            del contestants["transformers serve"]
        if args.requests:
            return endure(next(iter(contestants.values())), folder, args)
        for streams in args.streams:
            turns = {
                name: functools.partial(turn, command, folder, streams, args)
                for name, command in contestants.items()
            }
            results = interleave(turns, args.rounds)
            rows += [row(streams, result, results[-1]) for result in results]
    print(f"{machine(args.threads)}\n")
    print(table(HEADER, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
