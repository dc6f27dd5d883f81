"""`llm evaluate`: score a run on held-out text."""

from collections.abc import Sequence

ABOUT = """Score a run on held-out text: loss, perplexity and bits per byte over every byte, added to its
evaluation.json. Without data= that is the run's own validation split, with data= all of another set."""

EXAMPLES = {
    "run=runs/mine": "on its validation split",
    "run=runs/mine data=text 'data.paths=[other/*.txt]'": "on all of another set",
    "'run=[runs/mine,runs/demo]' 'eval=[perplexity,code]'": "several runs, several evaluations",
}


def run(argv: Sequence[str]) -> int:
    """Compose, build, evaluate; returns the exit code."""
    from llm.cli.compose import compose

    composed = compose("evaluate", argv)
    from llm.jobs import evaluate

    return evaluate.run(composed.config, composed.choices, typed=composed.typed)
