"""What a checkpoint is made of, and the manifest that vouches for it."""

import re
from pathlib import Path
from typing import Any

from llm.errors import CheckpointError
from llm.files import is_count, read_object, sha256

FORMAT = 1
# What a manifest says beside its files, and of what kind.
ABOUT = {
    "step": int,
    "samples": int,
    "best": dict | None,
    "model": dict,
    "tokenizer": str,
    "data": str,
}
MANIFEST = "manifest.json"
MODEL = "model"
OPTIMIZER = "optimizer"
MODEL_FILE = f"{MODEL}.safetensors"
OPTIMIZER_FILE = f"{OPTIMIZER}.safetensors"
Manifest = dict[str, Any]


def verify(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose every file has the size and SHA-256 that it states.

    Raises:
        CheckpointError: there is no manifest, or a file is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    for name, stated in manifest["files"].items():
        _verify_file(folder / name, stated)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, whose files are not looked at.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it holds no {MANIFEST}.")
    try:
        manifest = read_object(path)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}).") from None
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has format {manifest.get('format')}; this version reads {FORMAT}.")
    if wrong := [name for name, fits in _fits(manifest).items() if not fits]:
        raise CheckpointError(f"{path} is damaged (it has no good {', '.join(wrong)}).")
    return manifest


def _fits(manifest: Manifest) -> dict[str, bool]:
    """Whether each part of a manifest is of the kind that it should be."""
    best, files = manifest.get("best"), manifest.get("files")
    fits = {name: name in manifest and isinstance(manifest[name], kind) for name, kind in ABOUT.items()}
    for name in ("step", "samples"):
        fits[name] = is_count(manifest.get(name))
    if isinstance(best, dict):
        fits["best"] = is_count(best.get("step")) and isinstance(best.get("val/loss"), float | int)
    fits["files"] = isinstance(files, dict) and all(
        _is_inside(name) and isinstance(stated, dict) and stated.keys() >= {"bytes", "sha256"}
        for name, stated in files.items()
    )
    return fits


def _is_inside(name: str) -> bool:
    """Whether this names a file of the folder, or of one for shards, and nothing outside."""
    return re.fullmatch(rf"(({MODEL}|{OPTIMIZER})/)?[\w-][\w.-]*", name, re.ASCII) is not None


def _verify_file(path: Path, stated: dict[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    if path.stat().st_size != stated["bytes"]:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes, not the {stated['bytes']} it was saved with."
        )
    if sha256(path) != stated["sha256"]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}.")
