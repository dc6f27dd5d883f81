"""`llm prepare`: make the shards of a corpus before anything trains on them."""

from typing import Any

from llm import build
from llm.build import Config
from llm.data.report import render


def run(config: Config, choices: dict[str, Any]) -> int:
    """Prepare the corpus and print its report; returns the exit code."""
    spec = build.tokenizer_spec(config)
    corpus = build.corpus(config, spec, show=True, processes=config["processes"])
    print(render(corpus.report))
    print(f"\nReport: {corpus.folder / 'report.html'}\nShards: {corpus.folder}")
    return 0
