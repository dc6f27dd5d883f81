"""How a plan is shown: its figures as tables, and the words to type."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from llm.jobs.show import amount, duration, memory_rows
from llm.plan import OPTIMAL_TOKENS

Figures = dict[str, Any]
Row = tuple[str, str, str]

MOMENTS = {
    "batch": "before the first block",
    "embedding": "before the first block",
    "head": "when the loss is computed",
    "loss": "in the backward pass of the loss",
    "backward": "behind the backward pass of the loss",
    "update": "in the optimizer's update",
}
WIDTH = 110


def show(figures: Figures) -> None:
    """Print a plan."""
    console = Console(width=WIDTH, highlight=False)
    for title, rows in (
        ("The run", _run(figures)),
        (f"Memory a process, at its peak: {moment(figures['moment'])}", _memory(figures)),
        ("A step", _step(figures)),
        ("Messages a step and process", _messages(figures)),
        ("All of it", _all(figures)),
    ):
        _print(console, title, list(rows))
    for line in _advice(figures):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"Planned in {duration(figures['seconds'])}. Nothing was trained or written.", markup=False)


def _print(console: Console, title: str, rows: list[Row]) -> None:
    table = Table(
        box=None, show_header=False, title=title, title_justify="left", title_style="bold", padding=(0, 1)
    )
    table.add_column(width=20)
    table.add_column(justify="right", no_wrap=True, min_width=14)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    if rows:
        console.print(table)
        console.print()


def moment(name: str) -> str:
    """When the most lives, in words."""
    what, _, index = name.partition(" ")
    if not index:
        return MOMENTS[what]
    place = f"block {int(index) + 1}" if int(index) >= 0 else f"block {-int(index)} from the end"
    return f"in the {what} pass of {place}"


def _run(figures: Figures) -> Iterator[Row]:
    words = " ".join(f"{key}={value}" for key, value in figures["choice"].items())
    yield "parameters", f"{figures['parameters']:,}", f"with a vocabulary of {figures['vocabulary']:,}"
    yield "devices", f"{figures['world_size']:,}", f"{figures['accelerator']}, {figures['precision']}"
    yield (
        "batch",
        f"{figures['batch_size']:,}",
        f"sequences a step, {figures['tokens_per_step']:,} tokens; a process takes {figures['choice']['data.micro_batch_size']} "
        f"at a time, {_times(figures['accumulation'])}",
    )
    yield "laid out by", "", words


def _times(count: int) -> str:
    return "once a step" if count == 1 else f"{count:,} times a step"


def _memory(figures: Figures) -> Iterator[Row]:
    yield from memory_rows(figures["memory"])
    verdict = "it fits" if figures["fits"] else "IT DOES NOT FIT"
    yield (
        "in all",
        f"{amount(figures['memory']['total'])}B",
        f"of {amount(figures['room'])}B: {verdict} ({amount(figures['device_memory'])}B a process, "
        f"{figures['headroom']:.0%} of them kept free by headroom=)",
    )


def _step(figures: Figures) -> Iterator[Row]:
    seconds = figures["step_seconds"]
    yield (
        "FLOPs a token",
        amount(figures["flops_per_token"]),
        "forward and backward pass; what activation checkpointing computes twice counts once",
    )
    yield (
        "computing",
        f"{seconds['compute']:.3g} s",
        f"at {figures['matmul_efficiency']:.0%} (matmul_efficiency=) of {amount(figures['peak_flops'])}FLOP/s a device, with what is computed twice",
    )
    waited = max(seconds["data"] - seconds["compute"], 0) + seconds["tensor"]
    if waited:
        yield "waiting", f"{waited:.3g} s", "for messages that computing doesn't cover"
    if seconds["update"]:
        yield "update", f"{seconds['update']:.3g} s", _update(figures)
    yield "in all", f"{seconds['total']:.3g} s", ""
    yield (
        "tokens a second",
        f"{figures['tokens_per_second']:,.0f}",
        f"by all devices: {figures['model_mfu']:.1%} of their peak (MFU), all of the above counted",
    )


def _update(figures: Figures) -> str:
    if figures["memory"]["host"]:
        return "gradients to the host and weights back; what the host computes is not counted"
    return "reading and writing weights and the optimizer's state at the memory's speed"


def _messages(figures: Figures) -> Iterator[Row]:
    seconds = figures["step_seconds"]
    covered = "covered by computing" if seconds["data"] <= seconds["compute"] else "LONGER THAN COMPUTING"
    why = {
        "data": ("weights and gradients", f", {covered}"),
        "tensor": ("parts of matrix products", ", for which computing waits"),
    }
    for what, size in figures["sent"].items():
        speed, (of, then) = figures["links"][what], why[what]
        if size:
            over = "" if speed is None else f": {seconds[what]:.3g} s at {speed:g} GB/s{then}"
            yield what, f"{amount(size)}B", of + over


def _all(figures: Figures) -> Iterator[Row]:
    wanted = OPTIMAL_TOKENS * figures["parameters"]
    if figures["steps"] is None:
        yield "steps", "?", "known once the text is prepared (llm prepare), or by tokens="
    else:
        yield "steps", f"{figures['steps']:,}", f"trainer.max_steps={figures['steps']}"
        yield "tokens", amount(figures["tokens"]), ""
        yield "FLOPs", amount(figures["flops"]), ""
        days = figures["train_seconds"] / 86400
        yield (
            "time",
            f"{days:,.1f} days" if days >= 1 else duration(figures["train_seconds"]),
            "training alone",
        )
        if figures["cost"] is None:
            yield "cost", "?", "state hardware.price_per_hour=… for a cost"
        else:
            yield "cost", f"{figures['cost']:,.2f}", "of all devices, while they train"
        yield (
            "these FLOPs suit",
            amount(figures["optimal_parameters"]),
            f"parameters and {amount(figures['optimal_tokens'])}tokens, for the lowest loss (Chinchilla, arXiv 2203.15556)",
        )
    yield "this model suits", amount(wanted), f"tokens: {OPTIMAL_TOKENS} a parameter (the same)"


def _advice(figures: Figures) -> Iterator[str]:
    ways = figures["ways"]
    if figures["goal"] == "fastest":
        yield (
            "The fastest that fits:"
            if ways
            else "Nothing that was tried fits: take more devices, or larger ones."
        )
    elif not figures["fits"]:
        yield (
            "Any of these fits:"
            if ways
            else "Nothing that was tried fits: take more devices, or larger ones."
        )
    for way in ways:
        words = " ".join(way["overrides"]) or "the command as it is"
        yield f"  {words}"
        yield f"      {amount(way['memory'])}B, {way['tokens_per_second']:,.0f} tokens a second"
