"""How the jobs print figures: plain lines, the same on a terminal and in a file."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

UNITS = {"loss": "nats a token", "bits_per_byte": "bits a byte", "xz_bits_per_byte": "bits a byte"}
LETTERS = (
    (1e24, "Y"),
    (1e21, "Z"),
    (1e18, "E"),
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
)
# What is in a process's memory (llm.plan.Memory), and what to say of it.
MEMORY_KINDS = {
    "weights": "",
    "gradients": "",
    "optimizer": "its state",
    "activations": "what the backward pass needs, and what it makes on its way",
    "logits": "and their gradients",
    "buffers": "messages, gathered weights, the update",
    "gaps": "between tensors, where a CPU's allocator keeps what was freed",
    "host": "what is offloaded, in the host's memory; not on the device",
}
# Most commands have none of these.
SELDOM = ("gaps", "host")
SPANS = (("y", 31_557_600), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def number(value: float) -> str:
    """A figure for reading: whole numbers with separators, others to four significant digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def amount(value: float) -> str:
    """A large figure in three digits and a letter, such as 1.23 G, with the space that its unit follows."""
    for limit, letter in LETTERS:
        if abs(value) >= limit:
            return f"{value / limit:.3g} {letter}"
    return f"{value:.3g} "


def duration(seconds: float) -> str:
    """A time in its two largest parts, such as 3 h 12 min."""
    for (unit, length), (smaller, short) in pairwise(SPANS):
        if seconds >= length:
            whole, rest = int(seconds // length), int(seconds % length // short)
            return f"{whole} {unit} {rest} {smaller}" if rest and whole < 10 else f"{whole} {unit}"
    return f"{seconds:.0f} s"


def memory_rows(memory: Mapping[str, int]) -> Iterator[tuple[str, str, str]]:
    """A row for each kind of memory, of bytes by kind: what it is called, how much it is, and a remark."""
    for kind, remark in MEMORY_KINDS.items():
        if memory[kind] or kind not in SELDOM:
            yield kind, f"{amount(memory[kind])}B", remark


def show_entries(title: str, entries: list[dict[str, Any]]) -> None:
    """Print evaluation entries, a line a figure."""
    print(f"\n{title}")
    for entry in entries:
        print(
            f"  {entry['evaluation']} on {entry['data']} ({entry['split']}, {entry['examples']:,} examples)"
        )
        for name, value in entry["metrics"].items():
            print(f"    {name.replace('_', ' '):<18} {number(value):>12}  {UNITS.get(name, '')}".rstrip())
