"""Reading a Hugging Face model folder: config.json and safetensors, never a pickle and never code."""

from pathlib import Path
from typing import Any

from torch import Tensor

from llm.errors import CheckpointError, install_command
from llm.files import read_object, read_tensors

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def local(start: str) -> Path:
    """The folder of a model: `start` itself, or what its hub id names, downloaded once and kept by huggingface_hub.

    Weights come as safetensors alone, and no code. A CheckpointError says why there is none.
    """
    folder = Path(start).expanduser()
    if folder.is_dir():
        return folder
    missing = f"{start} is no folder of a run or of a Hugging Face model"
    if folder.is_absolute() or start.startswith((".", "~")) or start.count("/") > 1:
        raise CheckpointError(f"{missing}: there is no such folder.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(f"{missing}; for a hub id, {install_command('huggingface')}.") from None
    try:
        return Path(snapshot_download(start, allow_patterns=HUB_FILES))
    except Exception as error:
        # The client raises many kinds of error, its HTTP library's among them; each means that there is no model.
        raise CheckpointError(
            f"{missing}, and the hub gave none of that id: {type(error).__name__}: {error}"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of `folder`; a CheckpointError if there is none or it isn't one."""
    return _read_json(folder / "config.json")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of the one weights file or of all the shards that the index names."""
    state: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        try:
            state |= read_tensors(path)
        except ValueError as error:
            raise CheckpointError(f"{path} cannot be read ({error}): copy or download it again") from error
    return state


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        pickles = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES))
        found = (
            f"; {pickles} is not opened, since a pickle can run code: save it as safetensors"
            if pickles
            else ""
        )
        raise CheckpointError(f"{folder} has neither {WHOLE} nor {INDEX}{found}.")
    names = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{folder / INDEX} has no weight_map from tensors to files")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{folder / INDEX} names {name!r}, which is not a file of that folder")
    return [folder / name for name in files]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): is it a Hugging Face model folder?"
        ) from error
