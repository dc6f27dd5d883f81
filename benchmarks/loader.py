"""Microseconds for a batch of 16 x 512 tokens: our training loader beside the usual ways to read the same file.

    python benchmarks/loader.py

One file of uint16 ids, read once beforehand so that it lies in memory. Every contestant is a process of its own, with
no worker beside it, and gives windows in random order as int64 inputs and targets; they take turns. Ours is what
Lightning pulls from: the loader of CorpusDataModule, alone and inside Lightning's CombinedLoader. The bar for it to
stay below is 80 µs.
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from timing import Figures, Result, give_up, interleave, machine, measured, notes, paired_ratio, say, table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from llm.data import Corpus, CorpusDataModule, TokenStream
from llm.data.collators.base import Setting
from llm.data.collators.causal import CausalCollator
from llm.data.corpus import documents_name, tokens_name
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec

BAR_US = 80
LENGTH, BATCH = 512, 16
WARM = 300
DTYPE = np.dtype("<u2")
STREAM = "train"

Pair = tuple[Tensor, Tensor]


def write_tokens(folder: Path, n_tokens: int) -> None:
    """A stream of random ids, which cost as much to read as others, that is one document."""
    ids = np.random.default_rng(0).integers(0, 1 << 15, n_tokens, DTYPE)
    ids.tofile(folder / tokens_name(STREAM))
    np.zeros(1, "<u8").tofile(folder / documents_name(STREAM))


def pair(windows: np.ndarray) -> Pair:
    """Windows (b, t + 1) as inputs and targets."""
    ids = torch.from_numpy(windows.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]


def our_loader(folder: Path) -> DataLoader:
    stream = TokenStream(folder, STREAM, DTYPE, 0)
    corpus = cast(Corpus, SimpleNamespace(name="random", train=stream, validation=stream))
    collate = CausalCollator(Setting(ByteSpec().build(), 0, ModelConfig(context_length=LENGTH)))
    sizes = {"context_length": LENGTH, "batch_size": BATCH, "micro_batch_size": BATCH}
    return CorpusDataModule(corpus, collate, **sizes, seed=0).train_dataloader()


def ours(folder: Path) -> Iterator[Any]:
    return iter(our_loader(folder))


def ours_combined(folder: Path) -> Iterator[Any]:
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

    return iter(CombinedLoader(our_loader(folder), "max_size_cycle"))


class Windows(Dataset):
    """Windows side by side; whole batches of them with `__getitems__`."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.memmap(folder / tokens_name(STREAM), DTYPE, mode="r")

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // LENGTH

    def __getitem__(self, index: int) -> Pair:
        start = index * LENGTH
        ids = torch.from_numpy(self.tokens[start : start + LENGTH + 1].astype(np.int64))
        return ids[:-1], ids[1:]


class BatchedWindows(Windows):
    """Windows a batch at a time."""

    def __getitems__(self, indices: list[int]) -> Pair:
        places = np.asarray(indices)[:, None] * LENGTH + np.arange(LENGTH + 1)
        return pair(self.tokens[places])


def gather_and_stack(folder: Path) -> Iterator[Any]:
    tokens, draw = np.memmap(folder / tokens_name(STREAM), DTYPE, mode="r"), np.random.default_rng(0)
    while True:
        starts = draw.integers(0, len(tokens) - LENGTH, BATCH).tolist()
        yield pair(np.stack([tokens[start : start + LENGTH + 1] for start in starts]))


def batched_items(folder: Path) -> Iterator[Any]:
    return repeat(
        DataLoader(BatchedWindows(folder), BATCH, shuffle=True, drop_last=True, collate_fn=as_it_is)
    )


def single_items(folder: Path) -> Iterator[Any]:
    return repeat(DataLoader(Windows(folder), BATCH, shuffle=True, drop_last=True))


def huggingface(folder: Path) -> Iterator[Any]:
    try:
        import datasets
    except ImportError:
        give_up("datasets is not installed")
    tokens = np.fromfile(folder / tokens_name(STREAM), DTYPE)
    rows = tokens[: len(tokens) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    # The rows lie in an Arrow file that is memory-mapped, as they do for its users.
    datasets.Dataset.from_dict({"ids": list(rows)}).save_to_disk(folder / "arrow")
    found = datasets.load_from_disk(folder / "arrow").with_format("torch")
    order = RandomSampler(found, replacement=True, num_samples=sys.maxsize // 2)
    draw = (found[indices]["ids"] for indices in batches(order))
    return ((ids[:, :-1], ids[:, 1:]) for ids in draw)


def get_batch(folder: Path) -> Iterator[Any]:
    """In nanoGPT's manner: the file is mapped anew for each batch, and inputs and targets are gathered one by one."""
    while True:
        tokens = np.memmap(folder / tokens_name(STREAM), DTYPE, mode="r")
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,)).tolist()
        gathered = (
            [torch.from_numpy(tokens[start + by : start + by + LENGTH].astype(np.int64)) for start in starts]
            for by in (0, 1)
        )
        yield tuple(map(torch.stack, gathered))


def as_it_is(batch: Any) -> Any:
    return batch


def repeat(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def batches(order: RandomSampler) -> Iterator[list[int]]:
    indices = iter(order)
    while True:
        yield [next(indices) for _ in range(BATCH)]


CONTESTANTS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "ours": ours,
    "ours in Lightning's CombinedLoader": ours_combined,
    "memmap, gather and stack": gather_and_stack,
    "DataLoader, __getitems__": batched_items,
    "DataLoader, an item at a time": single_items,
    "Hugging Face datasets, torch format": huggingface,
    "get_batch in nanoGPT's manner": get_batch,
}


def time_batches(source: Iterator[Any], n_batches: int) -> Figures:
    """Microseconds a batch after the warm-up: of the processor, and by the clock in the median."""
    for _ in range(WARM):
        next(source)
    clock, began = [time.perf_counter()], time.process_time()
    for _ in range(n_batches):
        next(source)
        clock.append(time.perf_counter())
    cpu = time.process_time() - began
    median = statistics.median(after - before for before, after in pairwise(clock))
    return {"cpu_us": 1e6 * cpu / n_batches, "median_us": 1e6 * median}


def contest(name: str, folder: Path, n_batches: int) -> None:
    """What a contestant's process does."""
    torch.set_num_threads(1)
    np.fromfile(folder / tokens_name(STREAM), DTYPE)
    say(time_batches(CONTESTANTS[name](folder), n_batches))


def rows(results: list[Result]) -> Iterator[list[str]]:
    reference = results[0]
    for one in (one for one in results if one.rounds):
        figures = [f"{one.median(key):.1f}" for key in ("cpu_us", "median_us")]
        yield [one.name, *figures, f"{paired_ratio(one, reference, 'cpu_us'):.2f}"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--quick", action="store_true", help="a small file, once: whether it works")
    parser.add_argument("--contest", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contest:
        contest(args.contest[0], Path(args.contest[1]), args.batches)
        return 0
    n_tokens, rounds, n_batches = (
        (1_000_000, 1, 50) if args.quick else (args.tokens, args.rounds, args.batches)
    )
    with tempfile.TemporaryDirectory() as work:
        write_tokens(Path(work), n_tokens)
        command = [sys.executable, __file__, f"--batches={n_batches}", "--contest"]
        turns = {
            name: functools.partial(measured, [*command, name, work], args.threads) for name in CONTESTANTS
        }
        results = interleave(turns, rounds)
    print(f"{machine(args.threads)} {n_tokens:,} tokens, {n_batches:,} batches, {rounds} round(s).\n")
    print(table(["", "µs a batch, processor", "median by the clock", "over ours"], rows(results)))
    print(notes(results))
    return int(not args.quick and results[0].median("cpu_us") > BAR_US)


if __name__ == "__main__":
    raise SystemExit(main())
