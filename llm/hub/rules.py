"""Reversible rules between our weights and config and a Hugging Face family's: what a rule is, and how it is applied."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llm.errors import CheckpointError, ConfigError
from llm.model import ModelConfig, Transformer, least_parameters

State = Mapping[str, Tensor]
Values = dict[str, Any]
Shapes = dict[str, torch.Size]

# Keys that shape training alone: a converted model computes the same without them.
TRAINING_KEYS = frozenset({"dropout", "init_std", "zero_init_outputs"})

# Their names of activations without a gate -> ours, in the families that know torch's own; the first of ours is written.
UNGATED = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


class Rule:
    """Their module holds our modules' tensors, joined along the first dimension.

    Applies to the weight and the bias, wherever our model has one.

    Args:
        theirs: the name of their module.
        ours: the names of ours.
        transposed: for families that store the matrix of a linear map as (in, out).
        by_head: the parts of each head stand together, rather than the heads of each part.
        when: where two rules have the same module of ours, whether this one is for a model.
    """

    def __init__(
        self,
        theirs: str,
        *ours: str,
        transposed: bool = False,
        by_head: bool = False,
        when: Callable[[ModelConfig], bool] = lambda config: True,
    ) -> None:
        self.theirs, self.ours = theirs, ours
        self.transposed, self.by_head, self.applies = transposed, by_head, when

    def within(self, theirs: str, ours: str) -> "Rule":
        """Return the same rule for modules inside `theirs` and `ours`."""
        rule = copy.copy(self)
        rule.theirs = f"{theirs}.{self.theirs}"
        rule.ours = tuple(f"{ours}.{name}" for name in self.ours)
        return rule

    def join(self, tensors: list[Tensor], heads: int) -> Tensor:
        """Make their tensor from ours."""
        joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        if self.by_head:
            joined = _regrouped(joined, len(tensors), heads)
        return joined.t().contiguous() if self.transposed and joined.dim() == 2 else joined

    def split(self, tensor: Tensor, sizes: list[int], heads: int) -> list[Tensor]:
        """Make our tensors, of first dimensions `sizes`, from theirs."""
        straight = tensor.t() if self.transposed and tensor.dim() == 2 else tensor
        if self.by_head:
            straight = _regrouped(straight, heads, len(sizes))
        return [part.contiguous() for part in straight.split(sizes)]


def _regrouped(tensor: Tensor, outer: int, inner: int) -> Tensor:
    """Let the first dimension, of `outer` groups of `inner` groups, count the inner groups first."""
    return tensor.unflatten(0, (outer, inner, -1)).transpose(0, 1).flatten(0, 2)


@dataclass(frozen=True)
class Layers:
    """The repeated part: their and our name of layer {} of a stack, and its rules."""

    theirs: str
    ours: str
    rules: tuple[Rule, ...]

    def all_rules(self, config: ModelConfig) -> Iterator[Rule]:
        """Yield the rules of every layer of the stack."""
        count = config.encoder_layers if self.ours.startswith("encoder.") else config.n_layers
        for index in range(count):
            for rule in self.rules:
                yield rule.within(self.theirs.format(index), self.ours.format(index))


@dataclass(frozen=True)
class Family:
    """All that is known of one Hugging Face `model_type`, as data."""

    model_type: str
    architecture: str
    # Our key -> their keys of the same value; where there are several, they must agree.
    keys: Mapping[str, tuple[str, ...]]
    # What we must say to mean this family.
    constants: Mapping[str, Any]
    # What they must say to be convertible; also written.
    required: Mapping[str, Any]
    # What their config means by a key that it leaves out.
    defaults: Mapping[str, Any]
    activation_key: str
    # Their name -> ours; the first of each of ours is the one written.
    activations: Mapping[str, str]
    base: str  # the prefix of every tensor but the head's; checkpoints of the bare model leave it out
    tokens: str  # the token embedding under that prefix
    rules: tuple[Rule, ...]
    layers: tuple[Layers, ...]
    # Regular expressions of tensors that a checkpoint may hold beside the model's: what nobody needs, and what may be
    # left out as long as it is zero.
    ignored: str = ""
    zeros: str = ""
    # Endings of tensors' names in the oldest checkpoints, and what they have been called since.
    older: Mapping[str, str] = field(default_factory=dict)
    head: str = "lm_head.weight"  # what older checkpoints hold although it is tied
    # More keys, both ways, that do not correspond one to one.
    write_more: Callable[[ModelConfig], Values] = field(default=lambda config: {})
    read_more: Callable[[Values], Values] = field(default=lambda theirs: {})
    # What the tensors themselves say of the config.
    read_state: Callable[[ModelConfig, State], ModelConfig] = field(default=lambda config, state: config)
    # What their class refuses although their config could say it.
    limits: Callable[[ModelConfig], list[str]] = field(default=lambda config: [])

    def write_config(self, config: ModelConfig) -> Values:
        """Return their config.json for `config`, which `problems` has let pass."""
        ours = config.resolved().to_dict()
        theirs = {their: ours[our] for our, names in self.keys.items() for their in names}
        identity = {"model_type": self.model_type, "architectures": [self.architecture]}
        more = self.write_more(config)
        return (
            identity
            | {self.activation_key: self.write_activation(config)}
            | theirs
            | dict(self.required)
            | more
        )

    def read_config(self, theirs: Values) -> ModelConfig:
        """Return our config for their config.json; a ConfigError says what we have no part for."""
        said = dict(self.defaults) | theirs
        for key, wanted in self.required.items():
            if key in said and said[key] != wanted:
                raise ConfigError(f"{self.model_type}: {key}={said[key]!r} is not supported, only {wanted!r}")
        values = {our: self._agreed(said, names) for our, names in self.keys.items()}
        values["activation"] = self._read_activation(said)
        return ModelConfig.from_dict(values | dict(self.constants) | self.read_more(said))

    def problems(self, config: ModelConfig) -> list[str]:
        """Return what this family cannot express of `config`: the keys that would not come back the same."""
        wanted = config.resolved().to_dict()
        written = self.write_config(config)
        if written[self.activation_key] is None:
            return [
                f"activation={config.activation} (it has {', '.join(dict.fromkeys(self.activations.values()))})"
            ]
        try:
            returned = self.read_config(written).resolved().to_dict()
        except ConfigError as error:  # such as heads that divide the width only where head_dim can be said
            return [str(error)]
        return self.limits(config) + [
            f"{key}={value} (it has {returned[key]})"
            for key, value in wanted.items()
            if key not in TRAINING_KEYS and value != returned[key]
        ]

    def all_rules(self, config: ModelConfig) -> Iterator[Rule]:
        """Yield every rule, those of a layer once a layer."""
        every = itertools.chain(self.rules, *(layers.all_rules(config) for layers in self.layers))
        yield from (rule for rule in every if rule.applies(config))

    def full_name(self, name: str, *, bare: bool) -> str:
        """Return today's name of a checkpoint's tensor, whose prefix a `bare` model's leaves out."""
        for old, new in self.older.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return self.base + name if bare else name

    def write_activation(self, config: ModelConfig) -> str | None:
        """Return their name of our activation, None where they have none."""
        names = {our: their for their, our in reversed(list(self.activations.items()))}
        return names.get(config.activation)

    def _agreed(self, theirs: Values, names: tuple[str, ...]) -> Any:
        values = [self._read(theirs, name) for name in names]
        if any(value != values[0] for value in values):
            pairs = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
            raise ConfigError(f"{self.model_type}: {pairs} must agree, since here they are one key")
        return values[0]

    def _read(self, theirs: Values, name: str) -> Any:
        if name not in theirs:
            raise ConfigError(f"{self.model_type}: config.json has no {name!r}")
        return theirs[name]

    def _read_activation(self, theirs: Values) -> str:
        name = self._read(theirs, self.activation_key)
        if not isinstance(name, str) or name not in self.activations:
            known = ", ".join(self.activations)
            raise ConfigError(
                f"{self.model_type}: {self.activation_key}={name!r} is not supported, only {known}"
            )
        return self.activations[name]


def pairs(family: Family, config: ModelConfig) -> Iterator[tuple[str, list[str], Rule]]:
    """Yield (their tensor, our tensors, rule) for every tensor of a model of `config`."""
    ours = shapes_of(config)
    for rule in family.all_rules(config):
        for suffix in ("weight", "bias"):
            names = [f"{name}.{suffix}" for name in rule.ours]
            if all(name in ours for name in names):
                yield f"{rule.theirs}.{suffix}", names, rule


def shapes_of(config: ModelConfig) -> Shapes:
    """Return the name and shape of every weight of a model of `config`."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}


def to_theirs(family: Family, config: ModelConfig, state: State) -> dict[str, Tensor]:
    """Convert our tensors to theirs."""
    return {
        their: rule.join([state[name] for name in ours], config.n_heads)
        for their, ours, rule in pairs(family, config)
    }


def to_ours(family: Family, config: ModelConfig, state: State) -> dict[str, Tensor]:
    """Convert their tensors, which `expected` describes, to ours."""
    shapes = shapes_of(config)
    converted: dict[str, Tensor] = {}
    for their, ours, rule in pairs(family, config):
        parts = rule.split(state[their], [shapes[name][0] for name in ours], config.n_heads)
        converted |= dict(zip(ours, parts, strict=True))
    return converted


def expected(family: Family, config: ModelConfig) -> Shapes:
    """Return the name and shape of every tensor that their checkpoint of `config` must hold."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes_of(config).items()}
    return {name: tensor.shape for name, tensor in to_theirs(family, config, empty).items()}


def check_number(config: ModelConfig, state: State, where: str) -> None:
    """Refuse, by a CheckpointError, a state that is too small for `config`, before a model of that size is made."""
    found = sum(tensor.numel() for tensor in state.values())
    if found < least_parameters(config):
        raise CheckpointError(f"{where} does not fit its config: it has no more than {found:,} values")


def check_tensors(wanted: Shapes, state: State, where: str) -> None:
    """Refuse, by a CheckpointError, a state with missing, extra or misshapen tensors."""
    complaints = [f"{name} is missing" for name in wanted if name not in state]
    complaints += [f"{name} is not part of the model" for name in state if name not in wanted]
    complaints += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    if complaints:
        more = f" and {len(complaints) - 5} more" if len(complaints) > 5 else ""
        raise CheckpointError(f"{where} does not fit its config: {'; '.join(complaints[:5])}{more}")
