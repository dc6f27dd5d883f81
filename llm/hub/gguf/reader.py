"""Reading a .gguf file, whoever wrote it: every count and size is checked, and nothing in it is run."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm.errors import CheckpointError, ConfigError
from llm.hub.gguf import tokens
from llm.hub.gguf.architectures import ARCHITECTURES, ROPE_FACTORS, Architecture
from llm.hub.gguf.library import library, shortest
from llm.hub.rules import Values, check_number, check_tensors
from llm.model import ModelConfig
from llm.tokenizer import PretrainedTokenizer

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
LARGEST_ALIGNMENT = 1 << 16
# The format's numbers for types of values, with numpy's of the same; little-endian, as the files are.
NUMBERS = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: its shape as torch has it, the kind of its numbers, and its bytes in the file."""

    shape: tuple[int, ...]
    kind: Any
    start: int
    size: int


@dataclass(frozen=True)
class Content:
    """What a file says of itself, and where its tensors are."""

    metadata: Values
    tensors: Mapping[str, Stored]
    data: np.ndarray
    path: Path

    def tensor(self, name: str) -> Tensor:
        """The tensor `name` in float32; a CheckpointError where its quantisation isn't known."""
        stored = self.tensors[name]
        raw = self.data[stored.start : stored.start + stored.size]
        try:
            values = library().quants.dequantize(raw.reshape(*stored.shape[:-1], -1), stored.kind)
        except NotImplementedError:
            raise CheckpointError(
                f"{self.path}: {name} is quantised as {stored.kind.name}, which isn't read; use a file of another "
                "quantisation, such as Q8_0 or F16"
            ) from None
        return torch.from_numpy(np.array(values, np.float32).reshape(stored.shape))


def from_gguf(path: str | Path) -> tuple[ModelConfig, dict[str, Tensor], PretrainedTokenizer]:
    """Read the model and the tokenizer of a file, whatever its quantisation, in float32.

    A ConfigError says what the file has that we don't; a CheckpointError, what is missing or damaged.
    """
    content = read(Path(path))
    metadata, where = content.metadata, str(path)
    architecture = _architecture(metadata, where)
    sizes = {name: torch.empty(stored.shape, device="meta") for name, stored in content.tensors.items()}
    factors = {name: content.tensor(name) for name in (ROPE_FACTORS,) if name in content.tensors}
    config = architecture.read_config(metadata, sizes | factors)
    check_number(config, sizes, where)
    check_tensors(architecture.expected(config), sizes, where)
    tokenizer = tokens.read(metadata, where)
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"{where}: its tokenizer has {tokenizer.vocab_size} ids and its embedding {config.vocab_size} rows"
        )
    theirs = {name: content.tensor(name) for name in content.tensors}
    return config, architecture.to_ours(config, theirs), tokenizer


def _architecture(metadata: Values, where: str) -> Architecture:
    name = metadata.get("general.architecture")
    if metadata.get("split.count", 1) not in (0, 1):
        raise ConfigError(
            f"{where} is one of {metadata['split.count']} parts: join them by llama-gguf-split --merge"
        )
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f"{where}: general.architecture={name!r} is not supported, only {known}")
    return ARCHITECTURES[name]


def read(path: Path) -> Content:
    """Read what stands before the tensors; a CheckpointError says what is wrong with the file."""
    if not path.is_file() or path.stat().st_size == 0:
        raise CheckpointError(f"{path} is no GGUF file: there is no such file, or it is empty")
    data = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    try:
        return _content(_Cursor(data), path)
    except ValueError as error:
        raise CheckpointError(f"{path} is no whole GGUF file ({error}): copy or download it again") from error


class _Cursor:
    """Reads values one after the other; a ValueError where the bytes end, before anything is made of their size."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.place = data, 0

    def take(self, size: int) -> np.ndarray:
        if size > len(self.data) - self.place:
            raise ValueError(f"it ends within {size} bytes that begin at {self.place}")
        self.place += size
        return self.data[self.place - size : self.place]

    def count(self, least: int) -> int:
        """A number of things that take at least so many bytes each."""
        (number,) = struct.unpack("<Q", self.take(8).tobytes())
        if number * least > len(self.data) - self.place:
            raise ValueError(f"it has no room for the {number} things that it announces at {self.place}")
        return number

    def number(self, kind: str = "<u4") -> Any:
        return np.frombuffer(self.take(np.dtype(kind).itemsize), kind)[0].item()

    def string(self) -> str:
        return self.take(self.count(1)).tobytes().decode()

    def value(self, kind: int, nested: bool = False) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY and not nested:
            return self._array(self.number())
        if kind not in NUMBERS:
            raise ValueError(f"it has a value of the unknown type {kind} at {self.place}")
        number = self.number(NUMBERS[kind])
        return shortest(number) if NUMBERS[kind] == "<f4" else number

    def _array(self, kind: int) -> list[Any]:
        if kind not in NUMBERS:
            return [self.value(kind, nested=True) for _ in range(self.count(8))]
        width = np.dtype(NUMBERS[kind])
        return np.frombuffer(self.take(self.count(width.itemsize) * width.itemsize), width).tolist()


def _content(cursor: _Cursor, path: Path) -> Content:
    if cursor.take(4).tobytes() != MAGIC:
        raise ValueError("it does not begin with GGUF")
    if (version := cursor.number()) not in VERSIONS:
        raise ValueError(f"it is of version {version}, and {VERSIONS} are read; or it is big-endian")
    n_tensors, n_values = cursor.count(1), cursor.count(1)
    metadata: Values = {}
    for _ in range(n_values):
        key = cursor.string()
        if key in metadata:
            raise ValueError(f"it says {key} twice")
        metadata[key] = cursor.value(cursor.number())
    entries = [_entry(cursor) for _ in range(n_tensors)]
    return Content(metadata, _placed(entries, metadata, cursor), cursor.data, path)


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], Any, int]:
    """A tensor's name, shape, kind and place among the others."""
    name, dimensions = cursor.string(), cursor.number()
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"{name} has {dimensions} dimensions")
    shape = tuple(cursor.number("<u8") for _ in range(dimensions))[::-1]
    return name, shape, library().GGMLQuantizationType(cursor.number()), cursor.number("<u8")


def _placed(
    entries: list[tuple[str, tuple[int, ...], Any, int]], metadata: Values, cursor: _Cursor
) -> dict[str, Stored]:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= LARGEST_ALIGNMENT:
        raise ValueError(f"general.alignment is {alignment}")
    start = -(-cursor.place // alignment) * alignment
    placed: dict[str, Stored] = {}
    for name, shape, kind, offset in entries:
        block, width = library().GGML_QUANT_SIZES[kind]
        numel = 1
        for size in shape:
            numel *= size
        size = numel // block * width
        if name in placed or numel == 0 or shape[-1] % block or start + offset + size > len(cursor.data):
            raise ValueError(f"{name}, {shape} of {kind.name}, is not wholly there, or twice")
        placed[name] = Stored(shape, kind, start + offset, size)
    return placed
