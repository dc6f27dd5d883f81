"""A checkpoint in the other form: whole files from shards and back, one tensor in memory at a time."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from llm.errors import CheckpointError
from llm.files import sync
from llm.train import checkpoint
from llm.train.checkpoint import CheckpointWriter
from llm.train.tensors import DTYPES, SHARDING, SUFFIX, Stored, shard_name

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def convert(folder: Path, root: Path, n_shards: int | None) -> Path:
    """Write the checkpoint `folder` into `root` anew: whole, or each of its tensors in `n_shards`.

    It holds no more than its largest tensor in memory. Returns the new folder.

    Raises:
        CheckpointError: it is damaged, is there already, or cannot be written.
    """
    manifest = checkpoint.verify(folder)
    writer = CheckpointWriter(root, manifest["step"])
    if writer.target.exists():
        raise CheckpointError(f"{writer.target} exists already: choose another out=.")
    writer.discard()
    try:
        writer.folder.mkdir(parents=True)
        for kind in (checkpoint.MODEL, checkpoint.OPTIMIZER):
            _rewrite(Stored(folder, kind), writer.folder, kind, n_shards)
        for path in folder.glob("rng_*.safetensors"):
            shutil.copyfile(path, writer.folder / path.name)
            sync(writer.folder / path.name)
        return writer.publish({key: manifest[key] for key in manifest if key not in ("format", "files")})
    except OSError as error:
        raise CheckpointError(f"{writer.target} can't be written: {error.strerror}.") from error
    finally:
        writer.discard()


def _rewrite(stored: Stored, target: Path, kind: str, n_shards: int | None) -> None:
    if n_shards is None:
        paths = [target / f"{kind}{SUFFIX}"]
    else:
        (target / kind).mkdir()
        paths = [target / kind / shard_name(number) for number in range(1, n_shards + 1)]
    places = {name: _rows(about, len(paths)) for name, about in stored.tensors.items()}
    with ExitStack() as stack:
        files = [
            stack.enter_context(_file(path, _header(stored, places, number, n_shards is not None)))
            for number, path in enumerate(paths)
        ]
        for name, about in stored.tensors.items():
            value = torch.zeros_like(about, device="cpu")
            stored.read_into({name: value})
            for file, (begin, end) in zip(files, places[name], strict=True):
                file.write(_bytes(torch.atleast_1d(value)[begin:end]))
    for path in paths:
        sync(path)


def _rows(tensor: Tensor, n_shards: int) -> list[tuple[int, int]]:
    """The rows of a tensor that each shard holds; one of no dimensions counts as one row."""
    size = tensor.shape[0] if tensor.ndim else 1
    each = -(-size // n_shards)
    return [(min(i * each, size), min((i + 1) * each, size)) for i in range(n_shards)]


def _header(
    stored: Stored, places: dict[str, list[tuple[int, int]]], number: int, sharded: bool
) -> dict[str, object]:
    """What a safetensors file begins with: each tensor's type, shape and place, and where its rows begin."""
    header: dict[str, object] = {}
    offsets: dict[str, object] = {}
    position = 0
    for name, about in stored.tensors.items():
        begin, end = places[name][number]
        if begin == end:
            continue
        shape = [end - begin, *about.shape[1:]] if about.ndim else []
        size = about.dtype.itemsize * torch.Size(shape).numel()
        header[name] = {
            "dtype": NAMES[about.dtype],
            "shape": shape,
            "data_offsets": [position, position + size],
        }
        offsets[name] = {"saved_offsets": [begin, *[0] * (about.ndim - 1)] if about.ndim else []}
        position += size
    return {"__metadata__": {SHARDING: json.dumps(offsets)}, **header} if sharded else header


@contextmanager
def _file(path: Path, header: dict[str, object]) -> Iterator[BinaryIO]:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        yield file


def _bytes(tensor: Tensor) -> bytes | memoryview:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data
