"""Named tensors in files, whole or split over processes, and read into whatever layout their reader has.

model.safetensors                                     whole, or
model/shard-00001-model-00001-of-00001.safetensors    one process's share (torch.distributed.checkpoint), with where
                                                      each tensor of it begins in the whole in the file's header
"""

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from llm.errors import CheckpointError

SUFFIX = ".safetensors"
# The key in a file's header under which torch.distributed.checkpoint notes where each tensor begins.
SHARDING = "DCP_SHARDING_INFO"
# By safetensors' names; whoever asked for numbers checks that they are such.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Chunks = dict[tuple[int, ...], "Chunk"]


class Chunk(NamedTuple):
    """A part of a tensor that one file holds."""

    relative_path: str
    shape: torch.Size
    dtype: torch.dtype


def files(folder: Path, kind: str) -> list[Path]:
    """The files of a `kind` of tensors: one that is whole, or shards."""
    one = folder / f"{kind}{SUFFIX}"
    return [one] if one.exists() else sorted((folder / kind).glob(f"*{SUFFIX}"))


def shard_name(number: int) -> str:
    """The file of the n-th shard, counted from 1, as torch.distributed.checkpoint names it."""
    return f"shard-{number:05d}-model-00001-of-00001{SUFFIX}"


def write_shards(folder: Path, kind: str, tensors: dict[str, Tensor]) -> None:
    """Write each process's share of `tensors`, what several hold once; every process must call it.

    Raises:
        OSError: it failed on some process; every process raises.
    """
    writer = HuggingFaceStorageWriter(str(folder / kind), save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer)
    except CheckpointException as error:  # no Exception
        causes = "; ".join(f"rank {rank}: {cause[0]!r}" for rank, cause in sorted(error.failures.items()))
        raise OSError(causes) from error


class Stored:
    """The tensors of one kind in a checkpoint's folder.

    `tensors` has each by name without storage: its full shape and dtype.

    Raises:
        CheckpointError: a file is missing or cannot be read, or the shards don't make up whole tensors.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._where = folder / kind
        self._reader = _Reader(folder, kind)
        self.tensors = {
            name: torch.empty(_full_shape(chunks), dtype=next(iter(chunks.values())).dtype, device="meta")
            for name, chunks in self._reader.chunks.items()
        }

    def read_into(self, targets: dict[str, Tensor]) -> None:
        """Fill `targets`, each with its tensor or, where it is a DTensor, with this process's share of it.

        The names and shapes must be those of `tensors`. There is no communication.

        Raises:
            CheckpointError: a file cannot be read.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                dcp.load(targets, storage_reader=self._reader, no_dist=True)
        except (CheckpointException, OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise _unreadable(self._where, error) from None

    def read_like(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every tensor, laid out as that of `own`; one that `own` lacks, or has of another shape, is not read."""
        like = {
            name: torch.zeros_like(own[name], dtype=about.dtype)
            for name, about in self.tensors.items()
            if name in own and own[name].shape == about.shape
        }
        self.read_into(like)
        return self.tensors | like

    def read_whole(self) -> dict[str, Tensor]:
        """Every tensor, whole, on the CPU."""
        targets = {name: torch.zeros_like(about, device="cpu") for name, about in self.tensors.items()}
        self.read_into(targets)
        return targets


class _Reader(HuggingFaceStorageReader):
    """Reads one kind of tensors of a checkpoint's folder, and trusts no header."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(str(folder))
        self.chunks: dict[str, Chunks] = {}
        paths = files(folder, kind)
        if not paths:
            raise CheckpointError(f"{folder / kind}{SUFFIX} is missing.")
        for path in paths:
            self._add(path)
        for name, chunks in self.chunks.items():
            _check_tiles(folder / kind, name, chunks)

    def _add(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                offsets = _offsets(file.metadata())
                for name in file.keys():  # noqa: SIM118, no dict
                    about = file.get_slice(name)
                    shape = torch.Size(about.get_shape())
                    chunk = Chunk(str(path), shape, DTYPES[about.get_dtype()])
                    self.chunks.setdefault(name, {})[offsets.get(name, (0,) * len(shape))] = chunk
        except Exception as error:
            # On a header that is made to confuse it, safetensors raises more kinds of error than it documents.
            raise _unreadable(path, error) from None

    def read_metadata(self) -> Metadata:
        """What torch.distributed.checkpoint plans its reading by."""
        about: dict[str, Any] = {}
        places: dict[MetadataIndex, Chunk] = {}
        for name, chunks in self.chunks.items():
            about[name] = TensorStorageMetadata(
                TensorProperties(dtype=next(iter(chunks.values())).dtype),
                _full_shape(chunks),
                [ChunkStorageMetadata(torch.Size(offset), chunk.shape) for offset, chunk in chunks.items()],
            )
            places.update(
                {MetadataIndex(name, torch.Size(offset)): chunk for offset, chunk in chunks.items()}
            )
        return Metadata(about, storage_data=places, storage_meta=StorageMeta(load_id=self.load_id))


def _offsets(header: Mapping[str, str] | None) -> dict[str, tuple[int, ...]]:
    """Where each tensor of a file begins in the whole, as torch.distributed.checkpoint notes it."""
    noted = json.loads((header or {}).get(SHARDING, "{}"))
    return {name: tuple(map(int, about["saved_offsets"])) for name, about in noted.items()}


def _full_shape(chunks: Chunks) -> torch.Size:
    ends = [[begin + size for begin, size in zip(o, c.shape, strict=True)] for o, c in chunks.items()]
    return torch.Size(max(sizes) for sizes in zip(*ends, strict=True))


def _check_tiles(where: Path, name: str, chunks: Chunks) -> None:
    fit = all(len(o) == len(c.shape) and min(o, default=0) >= 0 for o, c in chunks.items())
    if not fit or sum(c.shape.numel() for c in chunks.values()) != math.prod(_full_shape(chunks)):
        raise CheckpointError(f"{where} is damaged: its shards don't make up a whole {name}.")


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}).")
