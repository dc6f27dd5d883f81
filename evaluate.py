"""Score a run on held-out text: `python evaluate.py run=runs/mine`, the same as `llm evaluate`."""

import sys

from llm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
