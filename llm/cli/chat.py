"""`llm chat`: chat with a run in the terminal."""

ABOUT = """Chat with a run, or the folder of a Hugging Face model. Ctrl-C stops an answer, Ctrl-D ends; /again asks
anew, /set temperature=0 says how it is written, /tokens shows what else each token might have been, /new, /chats and
/open go between conversations, /help lists all. Any other text is a message, as typed."""

EXAMPLES = {
    "run=runs/demo": "chat",
    'run=runs/demo system="Answer in one line."': "with instructions that stand before the chat",
    "run=runs/demo temperature=0 out=chats.jsonl": "always the likeliest token, in conversations that are kept",
}
