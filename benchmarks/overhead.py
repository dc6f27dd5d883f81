"""What train.py costs over a bare loop, on a model so small that little else is left.

    python benchmarks/overhead.py

One layer, 32 wide, context 32, batch 2. The whole path is `llm train` with bar, metrics.csv, schedule, clipping and
its own logging interval; the loop trains the same model by the same optimizer and clipping on the very batches that
the whole path saw, kept in memory. Both are processes of their own that take turns, and both are timed from one
forward pass to another thousands of steps later. The bar to stay below is 0.45 ms a step. What memory the whole path
takes is also set beside a loop over Hugging Face's GPT-2 of that shape, by an environment that has transformers:

    python benchmarks/overhead.py --huggingface <an environment with transformers>/bin/python
"""

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loops import Job
from timing import ROOT, Figures, Result, interleave, machine, measured, paired_ratio, say, table

from llm.malloc import start_again_without_cache

BAR_MS, BAR_MEMORY = 0.45, 1.1
WARM = 100
KEPT_BATCHES = 50
# The bar is drawn as on a terminal, though what it writes goes to a file.
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "120"}


def words(work: Path, steps: int) -> list[str]:
    """What the whole path is called with; what isn't said is the user's default."""
    return [
        "train",
        "data=stdlib",
        "tokenizer.vocab_size=512",
        f"shards_dir={work}/shards",
        f"runs_dir={work}/runs",
        f"name={time.time_ns()}",
        "model=gpt_nano",
        "model.d_model=32",
        "model.n_layers=1",
        "model.n_heads=2",
        "model.context_length=32",
        "data.batch_size=2",
        "compile=false",
        "optimizer.lr=1e-3",
        "eval=[]",
        "samples.every_n_steps=null",
        "samples.max_new_tokens=1",
        f"checkpoint.every_n_steps={steps}",
        "trainer.accelerator=cpu",
        "trainer.precision=32-true",
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=null",
    ]


class Watch:
    """Looks at the clock and at the processor's time once a step."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def look(self, *_: Any) -> None:
        """A step begins."""
        self.times.append((time.perf_counter(), time.process_time()))

    def figures(self) -> Figures:
        """Milliseconds a step after the warm-up, by the clock and of the processor."""
        steps = len(self.times) - 1 - WARM
        pairs = zip(self.times[WARM], self.times[-1], strict=True)
        wall, cpu = (1e3 * (end - begin) / steps for begin, end in pairs)
        return {"ms": wall, "cpu_ms": cpu}


def watched(function: Callable[..., Any], see: Callable[[Any], None]) -> Callable[..., Any]:
    """A method that first shows its first argument to `see`."""

    def method(self: Any, batch: Any, *rest: Any) -> Any:
        see(batch)
        return function(self, batch, *rest)

    return method


def whole_path(work: Path, steps: int, see: Callable[[Any], None]) -> None:
    """Train as `llm train` does, showing each batch to `see` as its forward pass begins."""
    start_again_without_cache()  # as train.py does
    os.environ.update(TERMINAL)
    from llm.cli.main import main as llm
    from llm.train.module import LanguageModule

    LanguageModule.training_step = watched(LanguageModule.training_step, see)  # type: ignore[method-assign]
    if code := llm(words(work, steps)):
        sys.exit(code)


def keep(work: Path) -> None:
    """Save the model's config and the first batches that the whole path sees, for the bare loop."""
    import torch

    batches: list[Any] = []
    whole_path(work, KEPT_BATCHES, batches.append)
    torch.save([tuple(batch) for batch in batches], work / "batches.pt")
    say({})


def ours(work: Path, steps: int) -> None:
    """Milliseconds a step of the whole path."""
    watch = Watch()
    whole_path(work, steps, watch.look)
    say(watch.figures())


def bare(work: Path, steps: int) -> None:
    """Milliseconds a step of a loop over the same model, objective, optimizer and batches."""
    import torch

    from llm.data.collators.base import Batch
    from llm.model import Transformer, init_weights
    from llm.objective.cross_entropy import CrossEntropy
    from llm.train.optimizers import adamw

    model = Transformer(kept_model_config(work)).train()
    init_weights(model, 1337)
    objective = CrossEntropy()
    optimizer = adamw(model.named_parameters(), lr=1e-3)
    batches = [Batch(*tensors) for tensors in torch.load(work / "batches.pt")]
    watch = Watch()
    for step in range(steps):
        watch.look()
        objective(model, batches[step % len(batches)]).mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    say(watch.figures())


def kept_model_config(work: Path) -> Any:
    """The config of the model that `keep` trained."""
    from llm.model import ModelConfig
    from llm.train import checkpoint

    (manifest,) = work.glob(f"runs/*/checkpoints/{checkpoint.folder_name(KEPT_BATCHES)}")
    return ModelConfig.from_dict(checkpoint.verify(manifest)["model"])


def show(whole: Result, loop: Result, *others: Result) -> str:
    rows = [
        [
            one.name,
            *(f"{one.median(key):.3f}" if one in (whole, loop) else "" for key in ("ms", "cpu_ms")),
            f"{one.median('peak_bytes') / 1e6:.0f} MB",
        ]
        for one in (whole, loop, *others)
    ]
    return table(["", "ms a step", "of the processor", "peak memory"], rows)


def excess(whole: Result, loop: Result, key: str) -> list[float]:
    """What the whole path took more, round by round."""
    return [own[key] - theirs[key] for own, theirs in zip(whole.rounds, loop.rounds, strict=True)]


def verdict(whole: Result, loop: Result, *others: Result) -> str:
    wall, cpu = (statistics.median(excess(whole, loop, key)) for key in ("ms", "cpu_ms"))
    rounds = ", ".join(f"{ms:.3f}" for ms in excess(whole, loop, "ms"))
    memory = ", ".join(
        f"{paired_ratio(whole, one, 'peak_bytes'):.2f} times the memory of {one.name}"
        for one in (loop, *others)
    )
    return (
        f"{wall:.3f} ms a step over the loop (rounds: {rounds}; of the processor {cpu:.3f}), "
        f"{'below' if wall <= BAR_MS else 'above'} the bar of {BAR_MS} ms; {memory} (bar {BAR_MEMORY})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--huggingface", help="the Python of an environment with transformers")
    parser.add_argument("--quick", action="store_true", help="one short round: whether it works")
    parser.add_argument("--part", choices=("keep", "ours", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    steps, rounds = (400, 1) if args.quick else (args.steps, args.rounds)
    if args.part == "keep":
        keep(args.work)
    elif args.part:
        {"ours": ours, "bare": bare}[args.part](args.work, args.steps)
    else:
        compare(steps, rounds, args.threads, args.huggingface)


def compare(steps: int, rounds: int, threads: int, huggingface: str | None) -> None:
    with tempfile.TemporaryDirectory() as work:
        base = [sys.executable, ROOT / "benchmarks/overhead.py", "--work", work, "--steps", steps, "--part"]
        measured([*base, "keep"], threads)
        turns = {
            title: functools.partial(measured, [*base, part], threads)
            for title, part in {"train.py": "ours", "bare loop": "bare"}.items()
        }
        if huggingface:
            job = Job(1, 32, 2, 512, 32, 2, warm=WARM, timed=steps - WARM)
            command = [huggingface, ROOT / "benchmarks/loops.py", "huggingface", job.to_json()]
            turns["Hugging Face's bare loop"] = functools.partial(measured, command, threads)
        results = interleave(turns, rounds)
    print(f"{machine(threads)}\n\n{show(*results)}\n\n{verdict(*results)}")


if __name__ == "__main__":
    main()
