"""`llm generate`: write text with a run."""

from collections.abc import Sequence

from llm.cli.compose import compose


def run(argv: Sequence[str]) -> int:
    """Compose, build, generate; returns the exit code."""
    composed = compose("generate", argv)
    from llm import build

    return build.generate(composed.config, composed.choices)
