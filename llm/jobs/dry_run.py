"""`dry_run=true`: what a training command would do and what it would take; nothing is trained or written."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from llm.build import Config
from llm.jobs.outlook import Outlook, look_ahead
from llm.jobs.show import amount, duration, memory_rows
from llm.model import parameter_count, sequence_flops
from llm.plan import MATMUL_EFFICIENCY, checkpoint_bytes, kept_checkpoints, pace
from llm.redaction import redacted
from llm.train import checkpoint, launch
from llm.train.run import Run

UNKNOWN = "known once the text is prepared (llm prepare)"

Line = tuple[str, str, str]


def show_dry_run(config: Config, choices: dict[str, Any]) -> int:
    """Print the composed config and what the run would take; returns the exit code."""
    if launch.rank() != 0:
        return 0
    outlook = look_ahead(config, choices)
    print(yaml.safe_dump(redacted(config), sort_keys=False, allow_unicode=True))
    for title, lines in (
        ("The run", _run(outlook)),
        ("Work", _work(outlook)),
        ("Memory a process", _memory(outlook)),
        ("Disk", _disk(outlook)),
    ):
        print(title)
        for what, value, remark in lines:
            print(f"  {what:<18} {value:>14}  {remark}".rstrip())
    print("\ndry_run=true: nothing was trained or written. Without it, this command trains.")
    return 0


def _run(outlook: Outlook) -> list[Line]:
    derived, run = outlook.derived, Run(Path(outlook.config["runs_dir"]) / outlook.config["name"])
    saved = checkpoint.folders(run.checkpoints)
    begins = f"there is a checkpoint of step {checkpoint.step_of(saved[0])}" if saved else "new"
    model_config = outlook.model_config
    sizes = f"{model_config.n_layers} layers, width {model_config.d_model}, {model_config.vocabulary:,} ids"
    how = f"{derived.precision}, micro-batches of {derived.micro_batch_size} x {derived.accumulation}"
    return [
        ("folder", str(run.folder), f"({begins}, resume={outlook.config['resume']})"),
        ("parameters", f"{parameter_count(model_config):,}", sizes),
        ("devices", f"{derived.world_size} x {derived.accelerator}", how + ", compiled" * derived.compile),
    ]


def _work(outlook: Outlook) -> list[Line]:
    mean, a_step = outlook.mean, outlook.tokens_per_step
    a_sample = sequence_flops(outlook.model_config, mean.inputs, read=mean.source, scored=mean.targets)
    a_token = a_sample / mean.counted
    lines = [
        (
            "tokens a step",
            f"{a_step:,}",
            f"{outlook.config['data']['batch_size']} sequences of {mean.counted:,.0f}",
        ),
        ("FLOPs a token", amount(a_token), "forward and backward"),
    ]
    if outlook.steps is None:
        return [*lines, ("steps", "?", UNKNOWN)]
    tokens = outlook.steps * a_step
    return [
        *lines,
        ("steps", f"{outlook.steps:,}", ""),
        ("tokens", f"{tokens:,}", ""),
        ("epochs", *_epochs(outlook, tokens)),
        ("FLOPs", amount(a_token * tokens), ""),
        ("time", *_time(outlook, outlook.steps)),
    ]


def _epochs(outlook: Outlook, tokens: int) -> tuple[str, str]:
    corpus = outlook.text.corpus
    if corpus is None:
        return "?", UNKNOWN
    return f"{tokens / len(corpus.train):.3g}", f"of {len(corpus.train):,} tokens in {corpus.folder}"


def _time(outlook: Outlook, steps: int) -> tuple[str, str]:
    config, peak = outlook.config, outlook.derived.peak_flops
    checkpointing, batch_size = config["activation_checkpointing"], config["data"]["batch_size"]
    seconds = steps * pace(outlook.step, outlook.trace, batch_size, checkpointing, peak).seconds
    return (
        f"about {duration(seconds)}",
        f"training alone, of matrix products at {MATMUL_EFFICIENCY:.0%} of {amount(peak)}FLOP/s a device",
    )


def _memory(outlook: Outlook) -> list[Line]:
    memory = outlook.trace.peak
    in_all = ("in all", f"{amount(memory.total)}B", "beside what the program itself takes")
    return [*memory_rows(asdict(memory)), in_all]


def _disk(outlook: Outlook) -> list[Line]:
    memory, whole = outlook.trace.peak, outlook.weight_bytes
    size = checkpoint_bytes(whole, round(memory.optimizer * whole / memory.weights))
    lines = [("a checkpoint", f"{amount(size)}B", "weights and optimizer state")]
    if outlook.steps is not None:
        kept = kept_checkpoints(outlook.steps, **outlook.config["checkpoint"])
        lines.append(("checkpoints", f"{amount(size * kept)}B", f"{kept} at most at a time"))
    corpus, n_bytes = outlook.text.corpus, outlook.text.n_bytes
    if corpus is not None:
        shards = sum(file["bytes"] for file in corpus.index["files"].values())
        return [*lines, ("shards", f"{amount(shards)}B", "prepared already")]
    text = "" if n_bytes is None else f"; the text has {amount(n_bytes)}B, and shards seldom more"
    return [*lines, ("shards", "?", UNKNOWN + text)]
