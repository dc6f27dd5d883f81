"""How the jobs print figures: plain lines, the same on a terminal and in a file."""

from typing import Any

UNITS = {"loss": "nats a token", "bits_per_byte": "bits a byte", "xz_bits_per_byte": "bits a byte"}


def number(value: float) -> str:
    """A figure for reading: whole numbers with separators, others to four significant digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"


def show_entries(title: str, entries: list[dict[str, Any]]) -> None:
    """Print evaluation entries, a line a figure."""
    print(f"\n{title}")
    for entry in entries:
        print(
            f"  {entry['evaluation']} on {entry['data']} ({entry['split']}, {entry['examples']:,} examples)"
        )
        for name, value in entry["metrics"].items():
            print(f"    {name.replace('_', ' '):<18} {number(value):>12}  {UNITS.get(name, '')}".rstrip())
