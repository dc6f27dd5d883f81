"""Tokens per second, model-FLOPs utilisation and memory on one GPU, of train.py beside bare loops.

    python benchmarks/gpu.py

bf16, compiled, AdamW (fused), clipping at 1.0, no dropout. The loops go over our model and over Hugging Face's of the
same shape, made from our config by llm/hub, on one batch in memory; ours is the whole of train.py. Operations are
counted alike for all, by llm.model.flops_per_token. Beside what was measured of train.py stands what its plan said (docs/plan.md),
without what torch.compile spares. Vocabularies are trained on Python's standard library, which
yields about 118,000 pieces: the Llama here has 100,000, not its own 128,256. Without a GPU it checks itself with tiny shapes on the CPU.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loops
from throughput import data_words, prepare, speed_after
from timing import ROOT, Figures, Result, interleave, machine, measured, notes, say, table


@dataclass(frozen=True)
class Case:
    """A choice of model= and the batch that it trains on, in sequences."""

    words: tuple[str, ...]
    vocab_size: int
    context_length: int
    batch_size: int
    warm: int = 10
    timed: int = 20


CASES = {
    "gpt_small": Case(("model=gpt_small",), 50257, 1024, 32),
    "gpt_medium": Case(("model=gpt_medium",), 50257, 1024, 16),
    "llama_1b": Case(("model=llama_1b",), 100_000, 2048, 4),
}
GPT_TINY = ("model=gpt_small", "model.d_model=32", "model.n_heads=2", "model.n_layers=1")
LLAMA_TINY = (
    "model=llama_nano",
    "model.d_model=32",
    "model.head_dim=8",
    "model.d_ff=64",
    "model.n_layers=1",
)
TINY = {
    "gpt_small, tiny": Case(GPT_TINY, 512, 32, 2, warm=2, timed=4),
    "llama_1b, tiny": Case(LLAMA_TINY, 512, 32, 2, warm=2, timed=4),
}


def accelerator() -> str:
    """`cuda`, or `cpu` where there is none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def model_config(case: Case) -> Any:
    """The case's ModelConfig."""
    from llm.cli.compose import compose
    from llm.model import ModelConfig

    words = [*case.words, f"model.context_length={case.context_length}"]
    keys = compose("train", words).config["model"]
    return ModelConfig.from_dict({**keys, "vocab_size": case.vocab_size})


def job(case: Case) -> loops.Job:
    """What the loops are told of it."""
    config = model_config(case)
    return loops.Job(
        n_layers=config.n_layers,
        d_model=config.d_model,
        n_heads=config.n_heads,
        vocab_size=case.vocab_size,
        context_length=case.context_length,
        batch_size=case.batch_size,
        warm=case.warm,
        timed=case.timed,
        precision="bf16",
        compile=True,
    )


def our_loss(case: Case) -> Callable[[Any], Any]:
    """Ids to loss by our model and objective, compiled as train.py does."""
    import torch

    from llm.data.collators.base import Batch
    from llm.model import Transformer, init_weights
    from llm.objective.cross_entropy import CrossEntropy

    model = Transformer(model_config(case))
    init_weights(model, 0)
    objective = torch.compile(CrossEntropy())
    samples = torch.arange(case.batch_size)
    return loops.scored(model, lambda ids: objective(model, Batch(ids, ids.roll(-1, 1), samples)).mean)


def their_loss(case: Case) -> Callable[[Any], Any]:
    """Ids to loss by Hugging Face's model of the same shape."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from llm.hub import to_huggingface
    from llm.model import Transformer

    with torch.device("meta"):
        _, keys = to_huggingface(Transformer(model_config(case)), model_config(case))
    config = AutoConfig.for_model(**{**keys, "torch_dtype": "float32", "use_cache": False})
    for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    call = torch.compile(model)
    return loops.scored(model, lambda ids: call(input_ids=ids, labels=ids).loss)


def train(case: Case, work: Path, more: list[str]) -> Figures:
    """Train as train.py does; tokens per second after the warm-up, and what the plan said."""
    from llm.cli.main import main as llm

    runs = Path(tempfile.mkdtemp(dir=work))
    words = [
        *case.words,
        *data_words(case.vocab_size, work),
        f"model.context_length={case.context_length}",
        f"data.batch_size={case.batch_size}",
        f"data.micro_batch_size={case.batch_size}",
        f"runs_dir={runs}",
        "name=gpu",
        "compile=true",
        "eval=[]",
        "samples.every_n_steps=null",
        "samples.max_new_tokens=1",
        f"trainer.accelerator={accelerator()}",
        "trainer.precision=bf16-mixed",
        f"trainer.max_steps={case.warm + case.timed}",
        f"trainer.log_every_n_steps={case.warm}",
        "trainer.val_check_interval=null",
        *more,
    ]
    if code := llm(["train", *words]):
        sys.exit(code)
    entries = json.loads((runs / "gpu/results.json").read_text())
    said = next(entry["metrics"] for entry in entries if entry["evaluation"] == "training")
    return {
        "tokens_per_second": speed_after(runs / "gpu", case.warm),
        "planned_tokens_per_second": said["planned_tokens_per_second"],
        "planned_bytes": said["planned_peak_bytes"],
    }


def contest(part: str, case: Case, work: Path, more: list[str]) -> None:
    """Be one contestant, and say its figures."""
    import torch

    from llm.model import flops_per_token
    from llm.train.hardware import peak_flops

    device = accelerator()
    if part == "train.py":
        found = train(case, work, more)
    else:
        loss = {"our model, bare loop": our_loss, "Hugging Face, bare loop": their_loss}[part](case)
        found = {"tokens_per_second": loops.bare_loop(loss, job(case), device)["tokens_per_second"]}
    peak = peak_flops(torch.device(device), torch.bfloat16)
    memory = {"gpu_bytes": torch.cuda.max_memory_allocated()} if device == "cuda" else {}
    say({**found, "mfu": found["tokens_per_second"] * flops_per_token(model_config(case)) / peak, **memory})


PARTS = ("train.py", "our model, bare loop", "Hugging Face, bare loop")


def show(results: list[Result]) -> str:
    rows = []
    for one in results:
        if one.rounds:
            key = "gpu_bytes" if "gpu_bytes" in one.rounds[0] else "peak_bytes"
            figures = (f"{one.median('tokens_per_second'):,.0f}", f"{one.median('mfu'):.1%}")
            rows.append([one.name, *figures, f"{one.median(key) / 1e9:.2f} GB", *planned(one)])
    return table(["", "tokens/s", "MFU", "peak memory", "planned tokens/s", "planned memory"], rows)


def planned(one: Result) -> tuple[str, str]:
    """What the plan said, where there was one."""
    if "planned_bytes" not in one.rounds[0]:
        return "", ""
    speed, size = one.median("planned_tokens_per_second"), one.median("planned_bytes")
    return f"{speed:,.0f}", f"{size / 1e9:.2f} GB"


def compare(cases: dict[str, Case], rounds: int, threads: int, more: list[str]) -> None:
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as work:
            prepare(case.vocab_size, Path(work), threads)
            base = [sys.executable, ROOT / "benchmarks/gpu.py", "--case", name, "--work", work]
            turns: dict[str, Callable[[], Figures]] = {
                part: functools.partial(
                    measured, [*base, f"--words={json.dumps(more)}", "--part", part], threads
                )
                for part in PARTS
            }
            results = interleave(turns, rounds)
        print(
            f"\n## {name}: {case.batch_size} x {case.context_length} tokens, {case.vocab_size:,} in the vocabulary"
        )
        print(f"\n{show(results)}\n\n{notes(results)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--words", type=json.loads, default=[], help="more words of train.py, a JSON list")
    parser.add_argument("--quick", action="store_true", help="one round of tiny shapes: whether it works")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=[*CASES, *TINY], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        contest(args.part, {**CASES, **TINY}[args.case], args.work, args.words)
        return
    name = gpu_name()
    print(machine(args.threads))
    if name and not args.quick:
        print(name)
        compare({name: CASES[name] for name in args.models}, args.rounds, args.threads, args.words)
    else:
        compare(TINY, 1, args.threads, args.words)
        print("This was a check of the script with tiny shapes; figures of a GPU are still to come.")


def gpu_name() -> str:
    """The GPU's name, empty without one; asked in a process of its own, so that this one stays light."""
    ask = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    name = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout
    return name.strip()


if __name__ == "__main__":
    main()
