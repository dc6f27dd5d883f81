"""Train a language model: `python train.py model=gpt_small trainer.max_steps=1000`, the same as `llm train`."""

import sys

from llm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
