"""`llm prepare`: make the shards of a corpus."""

from collections.abc import Sequence

ABOUT = """Make the shards of a corpus ahead of training: train the tokenizer, encode, write, report. A run with the
same data= and tokenizer= finds them by their fingerprint. A killed preparation goes on where it stopped."""

EXAMPLES = {
    "data=text 'data.paths=[my_folder/**/*.txt]' tokenizer.vocab_size=8192": "your own text",
    "data=jsonl data.paths=dump.jsonl.gz data.text=body": "a field of JSON lines",
    "data=huggingface data.path=roneneldan/TinyStories processes=8": "a set of the Hugging Face hub",
}


def run(argv: Sequence[str]) -> int:
    """Compose, build, prepare; returns the exit code."""
    from llm.cli.compose import compose

    composed = compose("prepare", argv)
    from llm.jobs import prepare

    return prepare.run(composed.config, composed.choices)
