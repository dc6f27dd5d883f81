"""`llm serve`: answer programs and people over HTTP with one run or several."""

ABOUT = """Serve runs, or folders of Hugging Face models, over HTTP: OpenAI's API at /v1 and a page to chat at /. Each
is named after its folder. Only this machine can reach it, unless host= says otherwise, which needs a key."""

EXAMPLES = {
    "run=runs/demo": "one model, at http://127.0.0.1:8000",
    "'run=[runs/demo,runs/mine]' port=9000": "several, chosen by name in each request",
    "run=runs/demo host=0.0.0.0 api_key=secret": "for other machines too, with a key",
}
