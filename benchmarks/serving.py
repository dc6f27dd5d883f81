"""`llm serve` under load beside `transformers serve`: tokens a second, time to the first token and between tokens.

    python benchmarks/serving.py

Both serve one folder, GPT-2's shape with random weights, on the same number of threads, and take turns. Each of 1, 4
and 16 clients asks /v1/completions for streamed greedy texts of one length, one after the other. Which of theirs is
faster, with continuous batching or without, is for `--theirs` to say. Random weights give an end of text as rarely as
any other of 50,257 tokens; what came is counted, not what was asked for.
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


def commands(folder: Path, theirs: list[str]) -> dict[str, list[str]]:
    """How each contestant is started, but for its port."""
    ours = [sys.executable, "-m", "llm", "serve", f"run={folder}", "port="]
    transformers = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device=cpu"]
    return {"llm serve": ours, "transformers serve": [*transformers, *theirs, "--port="]}


@contextlib.contextmanager
def served(command: list[str], threads: int) -> Iterator[str]:
    """The address of a server that answers."""
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
            yield address
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
    with served(command, args.threads) as address:
        model = folder.name if "llm" in command else str(folder)
        asyncio.run(load(address, model, 1, argparse.Namespace(**{**vars(args), "turns": 1})))
        began = time.perf_counter()
        found = asyncio.run(load(address, model, streams, args))
        seconds = time.perf_counter() - began
    first = [answer.came[0] - answer.sent for answer in found]
    between = [b - a for answer in found for a, b in zip(answer.came, answer.came[1:], strict=False)]
    return {
        "tokens_per_second": sum(len(answer.came) for answer in found) / seconds,
        **{f"first_p{share}": 1000 * percentile(first, share) for share in (50, 99)},
        **{f"between_p{share}": 1000 * percentile(between, share) for share in (50, 99)},
    }


def percentile(values: list[float], share: int) -> float:
    """The value that `share` percent do not exceed."""
    return (
        statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]
    )


def row(streams: int, result: Result, reference: Result) -> list[object]:
    """A contestant's line in the table."""
    keys = ("tokens_per_second", "first_p50", "first_p99", "between_p50", "between_p99")
    figures = [f"{result.median(key):,.1f}" for key in keys]
    return [result.name, streams, *figures, f"{paired_ratio(result, reference, keys[0]):.2f}"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--turns", type=int, default=3, help="texts that each client asks for")
    parser.add_argument("--prompt-words", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument(
        "--theirs", nargs="*", default=["--continuous-batching"], help="words for transformers serve"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of a tiny shape, ours alone: whether it works"
    )
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.streams, args.turns, args.new_tokens = 1, [1, 4], 1, 8
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "gpt2"
        folder.mkdir()
        write_model(folder, TINY if args.quick else GPT2)
        contestants = commands(folder, args.theirs)
        if args.quick:
            del contestants["transformers serve"]
        for streams in args.streams:
            turns = {
                name: functools.partial(turn, command, folder, streams, args)
                for name, command in contestants.items()
            }
            results = interleave(turns, args.rounds)
            rows += [row(streams, result, results[-1]) for result in results]
    print(f"{machine(args.threads)}\n")
    header = [
        "",
        "streams",
        "tokens/s",
        "first token p50, ms",
        "p99",
        "between tokens p50, ms",
        "p99",
        "ratio",
    ]
    print(table(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
