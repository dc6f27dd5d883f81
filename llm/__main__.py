"""`python -m llm <verb>`: the same as `llm <verb>`."""

import sys

from llm.cli.main import program

sys.exit(program())
