"""Low-rank adapters: beside frozen matrices, products of two thin ones are trained, and folded into them at the end.

Shapes: r rank, i inputs, o outputs of a layer.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.adapter.frozen import KINDS, Frozen, decoded
from llm.bounds import Count, Positive, ShareBelowOne
from llm.errors import ConfigError
from llm.model import Transformer
from llm.model.heads import LABEL_PARTS
from llm.model.init import generator_for

A, B, GAIN = "lora_a", "lora_b", "lora_gain"
ALL = "all"


class LowRank(Frozen):
    """A linear layer that stays as it is, with a trained product of two thin matrices beside it (arXiv 2106.09685).

    Its own matrix and bias keep their names and values; see `Frozen`.
    """

    def __init__(self, base: nn.Linear, bits: str | None, rank: int, scale: float, dropout: float) -> None:
        super().__init__(base, bits)
        self.rank, self.scale = rank, scale
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_empty(base.out_features, rank))
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension."""
        return self.product(x, self.bias) + self.change(x)

    def change(self, x: Tensor) -> Tensor:
        """What the product adds."""
        return self.scale * F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b)


class Decomposed(LowRank):
    """The same with the length of each output's row trained apart from its direction (DoRA, arXiv 2402.09353)."""

    def __init__(self, base: nn.Linear, bits: str | None, rank: int, scale: float, dropout: float) -> None:
        super().__init__(base, bits, rank, scale, dropout)
        self.lora_gain = nn.Parameter(base.weight.new_empty(base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension; no gradient goes through the rows' own lengths, as the paper has it."""
        turned_oi = self.matrix() + self.scale * (self.lora_b @ self.lora_a)
        longer_o = self.lora_gain / self.lengths(turned_oi.detach())
        y = longer_o * (self.product(x) + self.change(x))
        return y if self.bias is None else y + self.bias

    def lengths(self, matrix_oi: Tensor) -> Tensor:
        """The lengths (o,) of a matrix's rows."""
        return torch.linalg.vector_norm(matrix_oi, dim=1)


@dataclass(frozen=True)
class Lora:
    """conf/adapter/lora.yaml: which layers get an adapter, and of what kind.

    Args:
        rank: the inner width of the product.
        alpha: the product's weight, divided by the rank.
        dropout: of what enters the product.
        targets: parts of the blocks by name, such as query or feed_forward.up; `all` for every matrix there.
        rslora: alpha is divided by the root of the rank instead (arXiv 2312.03732).
        dora: the rows' lengths are trained apart (arXiv 2402.09353).
        quantize: int8 or nf4 keeps the frozen matrices of the blocks in 8 or 4 bits; None as the precision says.

    Raises:
        ConfigError: a value is out of its range.
    """

    rank: Count = 8
    alpha: Positive = 16.0
    dropout: ShareBelowOne = 0.0
    targets: str | Sequence[str] = ALL
    rslora: bool = False
    dora: bool = False
    quantize: str | None = None

    def __post_init__(self) -> None:
        # A checkpoint's manifest names these too, which no schema has checked.
        for key, fine, rule in (
            ("rank", self.rank >= 1, "at least 1"),
            ("alpha", self.alpha > 0, "above 0"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
        ):
            if not fine:
                raise ConfigError(f"adapter.{key}={getattr(self, key)}: it must be {rule}.")
        if self.quantize not in (None, *KINDS):
            raise ConfigError(
                f"adapter.quantize={self.quantize}: it is {' or '.join(KINDS)}, or null for neither."
            )

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def settings(self) -> dict[str, Any]:
        """The keys as plain values."""
        return asdict(self)

    def attach(self, net: Transformer) -> None:
        """Put adapters beside the chosen layers of `net`, in place, and freeze all else but a head of labels.

        Raises:
            ConfigError: a target is no part of this model, or the rank is as large as a layer.
        """
        make = Decomposed if self.dora else LowRank
        chosen = self._chosen(net)
        for name in chosen if self.quantize is None else list(_linears(net)):
            parent, _, leaf = name.rpartition(".")
            base = net.get_submodule(name)
            assert isinstance(base, nn.Linear)
            if self.quantize is not None:
                KINDS[self.quantize].check(name, base.weight)
            if name not in chosen:
                setattr(net.get_submodule(parent), leaf, Frozen(base, self.quantize))
                continue
            if self.rank > min(base.in_features, base.out_features):
                raise ConfigError(
                    f"adapter.rank={self.rank}: {name} has {base.in_features} inputs and {base.out_features} outputs, and "
                    "no matrix there has a larger rank than the fewer of them."
                )
            made = make(base, self.quantize, self.rank, self.scale, self.dropout)
            setattr(net.get_submodule(parent), leaf, made)
        for name, parameter in net.named_parameters():
            # Drawn anew, and so trained whole.
            is_head = bool(net.config.labels) and name.startswith(LABEL_PARTS)
            parameter.requires_grad_(is_head or name.endswith((A, B, GAIN)))

    def _chosen(self, net: Transformer) -> list[str]:
        names = list(_linears(net))
        if self.targets == ALL:
            return names
        targets = [self.targets] if isinstance(self.targets, str) else self.targets
        for target in targets:
            if not any(_is_called(name, target) for name in names):
                parts = sorted({name.rpartition(".")[2] for name in names})
                near = difflib.get_close_matches(target, parts, 1)
                guess = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(
                    f"adapter.targets: {target} is no part of this model's blocks; they have {', '.join(parts)}.{guess}"
                )
        return [name for name in names if any(_is_called(name, target) for target in targets)]


def _is_called(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _linears(net: Transformer) -> Iterator[str]:
    """The names of the linear layers in the blocks of both stacks."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(("stack.blocks.", "encoder.blocks.")):
            yield name


def layers(net: Transformer) -> dict[str, LowRank]:
    """The layers with an adapter, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, LowRank)}


def initial_weights(net: Transformer, weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The first weights of `net`, whose model without adapters has `weights`: the adapters change nothing yet.

    Matrices that `net` keeps in few bits are brought into them.
    """
    made, seen = dict(weights), dict(weights)
    for name, layer in net.named_modules():
        if isinstance(layer, Frozen) and layer.bits is not None:
            coded = KINDS[layer.bits].encode(made.pop(f"{name}.weight").float())
            made |= {f"{name}.{part}": tensor for part, tensor in coded._asdict().items()}
            if isinstance(layer, Decomposed):
                seen[f"{name}.weight"] = KINDS[layer.bits].decode(coded, torch.float32)
    return made | _fresh(net, seen, seed)


def _fresh(net: Transformer, weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The first values of the adapters of `net`, whose other weights are `weights`."""
    made: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        layer, _, leaf = name.rpartition(".")
        if leaf == A:
            bound = 1 / math.sqrt(parameter.shape[1])
            made[name] = torch.empty(parameter.shape).uniform_(
                -bound, bound, generator=generator_for(name, seed)
            )
        elif leaf == B:
            made[name] = torch.zeros(parameter.shape)
        elif leaf == GAIN:
            made[name] = torch.linalg.vector_norm(weights[f"{layer}.weight"].float(), dim=1)
    return made


def without_adapters(tensors: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """The weights that adapters stand beside; matrices in few bits are what these stand for."""
    own = {name: tensor for name, tensor in tensors.items() if not name.endswith((A, B, GAIN))}
    return decoded(own, lora.quantize)


def merged(tensors: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """The weights of a model with adapters, these folded in: those of a model without."""
    weights = without_adapters(tensors, lora)
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        if leaf != A:
            continue
        weights[f"{layer}.weight"] = folded(
            weights[f"{layer}.weight"],
            tensors[name],
            tensors[f"{layer}.{B}"],
            tensors.get(f"{layer}.{GAIN}"),
            lora.scale,
        )
    return weights


def folded(frozen_oi: Tensor, a_ri: Tensor, b_or: Tensor, gain_o: Tensor | None, scale: float) -> Tensor:
    """A matrix with its adapter in it, computed in float64; `gain_o` are the rows' lengths, of DoRA alone."""
    whole_oi = frozen_oi.double() + scale * (b_or.double() @ a_ri.double())
    if gain_o is not None:
        whole_oi *= (gain_o.double() / torch.linalg.vector_norm(whole_oi, dim=1))[:, None]
    return whole_oi.to(frozen_oi.dtype)
