"""`llm evaluate`: score a run on held-out text."""

from collections.abc import Sequence

from llm.cli.compose import compose


def run(argv: Sequence[str]) -> int:
    """Compose, build, evaluate; returns the exit code."""
    composed = compose("evaluate", argv)
    from llm import build

    return build.evaluate(composed.config, composed.choices)
