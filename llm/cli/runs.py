"""`llm runs`: list the runs and how they stand, or compare some."""

from collections.abc import Sequence

ABOUT = """List the runs in runs_dir, each with its status, step, losses, bits per byte of the last validation, age and
last sample. With two runs or more: where their configs differ, and a page with their curves over one another."""

EXAMPLES = {
    "": "all of runs/",
    "runs_dir=elsewhere": "of another folder",
    "'run=[runs/a,runs/b]' out=a_b.html": "two of them, compared",
}


def run(argv: Sequence[str]) -> int:
    """Compose, read, show; returns the exit code."""
    from llm.cli.compose import compose

    composed = compose("runs", argv)
    from llm.jobs import runs

    return runs.run(composed.config, composed.choices)
