"""`llm convert`: a checkpoint from shards to whole files, and back."""

from pathlib import Path

from llm.config import Composed
from llm.jobs.show import amount
from llm.train import checkpoint
from llm.train.convert import convert
from llm.train.run import Run


def run(composed: Composed) -> int:
    """Write the checkpoint in its other form; returns the exit code."""
    config = composed.config
    folder = checkpoint.find(Run.open(config["run"]).checkpoints, config["checkpoint"])
    written = convert(folder, Path(config["out"]), config["shards"] if config["to"] == "sharded" else None)
    files = checkpoint.read_manifest(written)["files"]
    print(f"{written}: {len(files)} files, {amount(sum(file['bytes'] for file in files.values()))}B")
    return 0
