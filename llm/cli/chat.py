"""`llm chat`: chat with a run in the terminal."""

from collections.abc import Sequence

ABOUT = """Chat with a run, or the folder of a Hugging Face model. Ctrl-C stops an answer, Ctrl-D ends; /again asks
anew, /new begins another chat. Any other text is a message, as typed."""

EXAMPLES = {
    "run=runs/demo": "chat",
    'run=runs/demo system="Answer in one line."': "with instructions that stand before the chat",
    "run=runs/demo temperature=0 max_new_tokens=100": "always the likeliest token, and short",
}


def run(argv: Sequence[str]) -> int:
    """Compose, build, chat; returns the exit code."""
    from llm.cli.compose import compose

    composed = compose("chat", argv)
    from llm.jobs import chat

    return chat.run(composed.config, composed.choices)
