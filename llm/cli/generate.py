"""`llm generate`: write text with a run."""

ABOUT = """Write text with a run, shown as it comes. Any text is a legal prompt: all that stands after prompt= is
taken as typed."""

EXAMPLES = {
    'run=runs/demo prompt="def main():"': "go on from a prompt",
    "run=runs/demo temperature=0.8 top_p=0.95 max_new_tokens=500": "shape the choice of tokens",
    "run=runs/demo 'data.paths=[prompts.jsonl]' out=texts.jsonl": "go on from each line of a file",
}
