"""Several adapters beside one model that is in memory once: each row of a batch is changed by its own, or by none.

Shapes: b rows of a batch, r rank, i inputs, o outputs of a layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.adapter.lora import GAIN, A, B
from llm.model import ModelConfig, Transformer
from llm.model.block import Memory
from llm.model.heads import LabelHead, Pooler

# The adapters of what runs, each with its rows, or None for all rows. Of the context, since models run in threads of
# their own and may share a model.
_RUNNING: ContextVar[Sequence[tuple[int, Tensor | None]]] = ContextVar("adapters", default=())


@contextmanager
def using(numbers: Sequence[int | None], device: torch.device | None = None) -> Iterator[None]:
    """Let each row of what runs inside be changed by the adapter of its number; a single number is for all rows."""
    distinct = {number for number in numbers if number is not None}
    running: list[tuple[int, Tensor | None]] = [(number, None) for number in distinct]
    if len(set(numbers)) > 1:
        running = [
            (number, torch.tensor([row for row, one in enumerate(numbers) if one == number], device=device))
            for number in sorted(distinct)
        ]
    token = _RUNNING.set(running)
    try:
        yield
    finally:
        _RUNNING.reset(token)


class Change(nn.Module):
    """What one adapter makes of the outputs of one layer (arXiv 2106.09685, and 2402.09353 where it has a gain)."""

    a_ri: Tensor
    b_or: Tensor
    gain_o: Tensor | None
    shift_o: Tensor | None

    def __init__(
        self, base: nn.Linear, scale: float, a_ri: Tensor, b_or: Tensor, gain_o: Tensor | None
    ) -> None:
        super().__init__()
        self.register_buffer("a_ri", a_ri, persistent=False)
        self.register_buffer("b_or", scale * b_or, persistent=False)
        longer_o = shift_o = None
        if gain_o is not None:
            longer_o = gain_o / torch.linalg.vector_norm(base.weight.detach() + self.b_or @ a_ri, dim=1)
            # The bias is in the outputs already, and isn't stretched with them.
            shift_o = None if base.bias is None else base.bias.detach() * (1 - longer_o)
        self.register_buffer("gain_o", longer_o, persistent=False)
        self.register_buffer("shift_o", shift_o, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The changed outputs (..., o) of a layer that makes `y` of `x` (..., i)."""
        y = y + F.linear(F.linear(x, self.a_ri), self.b_or)
        if self.gain_o is not None:
            y = self.gain_o * y
        return y if self.shift_o is None else y + self.shift_o


class Changes(nn.Module):
    """The changes of one layer, by the numbers of their adapters."""

    def __init__(self) -> None:
        super().__init__()
        self._by_number = nn.ModuleDict()

    def add(self, number: int, change: Change) -> None:
        """Take in the change of one more adapter."""
        self._by_number[str(number)] = change

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The outputs `y` (b, ..., o) of `x` (b, ..., i), each row changed by the adapter that runs for it, in place."""
        for number, rows_b in _RUNNING.get():
            if str(number) not in self._by_number:
                continue
            change = self._by_number[str(number)]
            if rows_b is None:
                y = change(x, y)
            else:
                y[rows_b] = change(x[rows_b], y[rows_b])
        return y


class Switched(nn.Linear):
    """A linear layer with changes beside it; its own matrix and bias keep their names and values."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.changes = Changes()

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension."""
        changed: Tensor = self.changes(x, F.linear(x, self.weight, self.bias))
        return changed


def is_attachable(net: Transformer, tensors: Mapping[str, Tensor]) -> bool:
    """Whether all that an adapter changes are linear layers, as those of blocks are; PEFT has them for output matrices too."""
    layers = (name.rpartition(".")[0] for name in tensors if name.endswith(f".{A}"))
    return all(isinstance(net.get_submodule(layer), nn.Linear) for layer in layers)


def attach(net: Transformer, number: int, scale: float, tensors: Mapping[str, Tensor]) -> None:
    """Put the adapter in `tensors`, by our layers' names, beside the layers of `net`, under its number.

    `scale` is what its products are multiplied by.
    """
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        if leaf != A:
            continue
        base = net.get_submodule(layer)
        assert isinstance(base, nn.Linear)
        if not isinstance(base, Switched):
            base = Switched(base)
            parent, _, child = layer.rpartition(".")
            setattr(net.get_submodule(parent), child, base)
        a_ri, b_or = (tensors[f"{layer}.{part}"].to(base.weight) for part in (A, B))
        gain_o = tensors.get(f"{layer}.{GAIN}")
        base.changes.add(
            number, Change(base, scale, a_ri, b_or, None if gain_o is None else gain_o.to(base.weight))
        )


class Adapted(Transformer):
    """A model that has all its layers in common with `shared`, changed by the adapter of one number.

    A head for labels is its own: `heads` holds its weights by name.
    """

    shared: Transformer
    number: int

    def __init__(
        self, shared: Transformer, number: int, config: ModelConfig, heads: Mapping[str, Tensor]
    ) -> None:
        nn.Module.__init__(self)
        self.config, self.number = config, number
        self.__dict__["shared"] = shared  # no module of this one: its parameters would count twice
        self.embedding, self.encoder, self.stack = shared.embedding, shared.encoder, shared.stack
        self.unembedding = None if config.labels else shared.unembedding
        self.label_head = LabelHead(config) if config.labels else None
        self.pooler = Pooler(config) if config.pooler else None
        for name, head in (("label_head", self.label_head), ("pooler", self.pooler)):
            if head is not None:
                head.load_state_dict({key.removeprefix(f"{name}."): heads[key] for key in heads if key.startswith(f"{name}.")})  # fmt: skip
                head.to(shared.embedding.tokens.weight)
        self.eval()

    def hidden_states(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Transformer.hidden_states`."""
        with using([self.number]):
            return super().hidden_states(*args, **kwargs)

    def source_states(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Transformer.source_states`."""
        with using([self.number]):
            return super().source_states(*args, **kwargs)

    def encode_source(self, *args: Any, **kwargs: Any) -> Memory:
        """As `Transformer.encode_source`."""
        with using([self.number]):
            return super().encode_source(*args, **kwargs)
