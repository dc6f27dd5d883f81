"""Train a language model: `python train.py model=gpt_small trainer.max_steps=1000`, the same as `llm train`."""

import sys

from llm.cli.main import program

if __name__ == "__main__":
    sys.exit(program("train"))
