"""`llm prepare`: make shards of a corpus."""

from collections.abc import Sequence

from llm.cli.compose import compose


def run(argv: Sequence[str]) -> int:
    """Compose, build, prepare; returns the exit code."""
    composed = compose("prepare", argv)
    from llm import build

    return build.prepare(composed.config, composed.choices)
