"""`llm train`: train a language model, or go on with one."""

from collections.abc import Sequence

from llm.cli.compose import compose


def run(argv: Sequence[str]) -> int:
    """Compose, build, train; returns the exit code."""
    composed = compose("train", argv)
    from llm import build

    return build.train(composed.config, composed.choices)
