"""`llm merge`: a run's adapter folded into its weights, as a run of its own."""

import shutil
from pathlib import Path

from llm.config import Composed
from llm.errors import ConfigError
from llm.files import publish, staging, taken
from llm.train import checkpoint
from llm.train.checkpoint import CheckpointWriter
from llm.train.run import Run

# What a manifest says that is not of the files.
ABOUT_FILES = ("format", "files", "adapter")


def run(composed: Composed) -> int:
    """Write the merged run; returns the exit code."""
    config = composed.config
    out = Path(config["out"]).expanduser()
    if taken(out):
        raise ConfigError(f"out={out}: something is there already. Nothing was written; choose another out=.")
    source = Run.open(config["run"])
    folder = checkpoint.find(source.checkpoints, config["checkpoint"])
    if checkpoint.adapter_of(folder) is None:
        raise ConfigError(
            f"run={source.folder}: it was trained without an adapter, so that there is nothing to merge."
        )
    try:
        with staging(out) as stage:
            _write(Run(stage), source, folder)
            publish(stage, out)
    except (FileExistsError, PermissionError, NotADirectoryError) as error:
        raise ConfigError(f"out={out}: it can't be written there: {error.strerror}.") from error
    print(f"{out}: {source.folder} at step {checkpoint.step_of(folder):,}, its adapter folded in")
    return 0


def _write(made: Run, source: Run, folder: Path) -> None:
    """Write the run that has the merged weights alone."""
    _, tensors = checkpoint.read_model(folder)
    manifest = {
        key: value for key, value in checkpoint.read_manifest(folder).items() if key not in ABOUT_FILES
    }
    step = manifest["step"]
    writer = CheckpointWriter(made.checkpoints, step)
    writer.write({checkpoint.MODEL_FILE: tensors})
    writer.publish({**manifest, "best": None})
    shutil.copytree(source.tokenizer, made.tokenizer)
    made.write_config({**source.config, "adapter": None})
    made.update(**{**source.record, "status": "finished", "merged_from": str(source.folder.resolve())})
