"""Score a run on held-out text: `python evaluate.py run=runs/mine`, the same as `llm evaluate`."""

import sys

from llm.cli.main import program

if __name__ == "__main__":
    sys.exit(program("evaluate"))
