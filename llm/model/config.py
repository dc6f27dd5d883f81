"""The shape of a transformer as a frozen dataclass: every key, its default, and the checks that stop a bad one."""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from llm.errors import ConfigError

NormKind = Literal["layer", "rms"]
Placing = Literal["pre", "post", "parallel"]
PositionKind = Literal["learned", "sinusoidal", "rotary", "none"]
Activation = Literal["gelu", "gelu_tanh", "relu", "relu2", "swiglu"]

GATED: frozenset[str] = frozenset({"swiglu"})
# Far above every model's; what is beyond it is a slip or a trap, and no such table could be made.
LARGEST_SIZE = 1 << 24


class _Checked:
    """Dataclass base: strict about types and choices, and about the names of the keys in a mapping."""

    path: ClassVar[str]  # what an error calls the place of these keys

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values, such as a YAML file or a checkpoint holds; an unknown key is a ConfigError."""
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for key in values:
            if key not in names:
                raise ConfigError(f"{cls.path} has no key {str(key)!r}{_did_you_mean(str(key), names)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, nested dataclasses as dicts: what `from_dict` takes back."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def _check_types(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _coerce(hints[field.name], getattr(self, field.name))
            _check_type(f"{self.path}.{field.name}", hints[field.name], value)
            object.__setattr__(self, field.name, value)

    def _require(self, ok: bool, key: str, wanted: str) -> None:
        if not ok:
            raise ConfigError(f"{self.path}.{key}={getattr(self, key)!r}: {wanted}")


@dataclass(frozen=True)
class RopeScaling(_Checked):
    """Llama 3's stretching of rotary wavelengths to contexts longer than the one trained on (arXiv 2407.21783).

    Wavelengths above original_context_length / low_freq_factor are stretched by `factor`, those below
    original_context_length / high_freq_factor stay, and those between are interpolated.
    """

    path: ClassVar[str] = "model.rope_scaling"

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_length: int = 8192

    def __post_init__(self) -> None:
        self._check_types()
        self._require(self.factor >= 1, "factor", "must be at least 1")
        self._require(self.low_freq_factor > 0, "low_freq_factor", "must be positive")
        self._require(
            self.high_freq_factor > self.low_freq_factor,
            "high_freq_factor",
            f"must be above low_freq_factor={self.low_freq_factor}",
        )
        self._require(self.original_context_length > 0, "original_context_length", "must be positive")


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """What a transformer is made of; sizes are counts, `None` means derived as the comment says."""

    path: ClassVar[str] = "model"

    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 4
    n_kv_heads: int | None = None  # n_heads; fewer is grouped-query attention, 1 is multi-query
    head_dim: int | None = None  # d_model / n_heads
    d_ff: int | None = None  # 4 * d_model, or 8/3 of it up to a multiple of 64 when gated
    context_length: int = 256  # the most tokens that one forward pass may see, cache included
    vocab_size: int | None = None  # the tokenizer's; must be known before the model is built
    dropout: float = 0.0  # on embeddings, attention weights and what each sublayer adds
    norm: NormKind = "rms"
    norm_eps: float = 1e-6
    norm_bias: bool = True  # layer norm alone has one
    residual: Placing = "pre"
    position: PositionKind = "rotary"
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    qk_norm: bool = False  # normalise each head's queries and keys before the rotation, as Qwen3 does
    attention_bias: bool = False
    mlp_bias: bool = False
    activation: Activation = "swiglu"
    scale_embeddings: bool = False  # token embeddings times sqrt(d_model), as in the Transformer of 2017
    tie_embeddings: bool = True
    logit_soft_cap: float | None = None  # logits become cap * tanh(logits / cap)
    init_std: float = 0.02
    zero_init_outputs: bool = False  # every sublayer starts as the identity

    def __post_init__(self) -> None:
        self._check_types()
        self._check_sizes()
        self._check_heads()
        self._check_ranges()

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def ff_size(self) -> int:
        """Width of the feed-forward's inner layer."""
        if self.d_ff is not None:
            return self.d_ff
        return -(-self.d_model * 8 // (3 * 64)) * 64 if self.activation in GATED else 4 * self.d_model

    @property
    def vocabulary(self) -> int:
        """The vocabulary's size; a ConfigError while it is still unknown."""
        if self.vocab_size is None:
            raise ConfigError(
                "model.vocab_size is not known yet: it is derived from the tokenizer, or set it"
            )
        return self.vocab_size

    def resolved(self) -> "ModelConfig":
        """The same model with every derived size written out, and keys that do not act on it at their defaults."""
        values: dict[str, Any] = {
            "n_kv_heads": self.kv_heads,
            "head_dim": self.head_size,
            "d_ff": self.ff_size,
        }
        if self.norm == "rms":
            values["norm_bias"] = True
        if self.position != "rotary":
            values["rope_theta"] = 10000.0
        return dataclasses.replace(self, **values)

    def with_vocab_size(self, vocab_size: int) -> "ModelConfig":
        """The same shape for a tokenizer of `vocab_size` ids; a ConfigError if another size was asked for."""
        if self.vocab_size not in (None, vocab_size):
            raise ConfigError(
                f"model.vocab_size={self.vocab_size}, but the tokenizer has {vocab_size} ids: "
                "leave model.vocab_size=null to derive it"
            )
        return dataclasses.replace(self, vocab_size=vocab_size)

    def _check_sizes(self) -> None:
        optional = ("n_kv_heads", "head_dim", "d_ff", "vocab_size")
        for key in ("d_model", "n_layers", "n_heads", "context_length", *optional):
            value = getattr(self, key)
            self._require(value is None or value > 0, key, "must be a positive integer")
            self._require(value is None or value <= LARGEST_SIZE, key, f"must be at most {LARGEST_SIZE:,}")

    def _check_heads(self) -> None:
        self._require(
            self.head_dim is not None or self.d_model % self.n_heads == 0,
            "n_heads",
            f"must divide d_model={self.d_model}{_nearest_divisor(self.d_model, self.n_heads)}, or set head_dim",
        )
        self._require(
            self.n_heads % self.kv_heads == 0,
            "n_kv_heads",
            f"must divide n_heads={self.n_heads}{_nearest_divisor(self.n_heads, self.kv_heads)}",
        )
        self._require(
            self.position != "rotary" or self.head_size % 2 == 0,
            "head_dim",
            f"position=rotary turns pairs, so heads must be of even width, not {self.head_size}",
        )
        self._require(
            self.position != "sinusoidal" or self.d_model % 2 == 0,
            "d_model",
            "must be even for position=sinusoidal",
        )

    def _check_ranges(self) -> None:
        self._require(0 <= self.dropout < 1, "dropout", "must be at least 0 and below 1")
        self._require(self.norm_eps > 0, "norm_eps", "must be positive")
        self._require(self.rope_theta > 0, "rope_theta", "must be positive")
        self._require(self.init_std > 0, "init_std", "must be positive")
        self._require(
            self.rope_scaling is None or self.position == "rotary",
            "rope_scaling",
            f"is for position=rotary, not {self.position}",
        )
        cap = self.logit_soft_cap
        self._require(cap is None or cap > 0, "logit_soft_cap", "must be positive, or null for none")


def _coerce(hint: Any, value: Any) -> Any:
    """Nested mappings become their dataclass and whole numbers floats, where the key wants that."""
    wanted = _alternatives(hint)
    for kind in wanted:
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return kind.from_dict(value)  # type: ignore[union-attr]
    if float in wanted and type(value) is int:
        return float(value)
    return value


def _check_type(key: str, hint: Any, value: Any) -> None:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            hint_text = _did_you_mean(str(value), choices)
            raise ConfigError(f"{key}={value!r}: must be one of {', '.join(choices)}{hint_text}")
    elif type(value) not in _alternatives(hint):
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in _alternatives(hint))
        raise ConfigError(f"{key}={value!r}: must be {names}, not {type(value).__name__}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value!r}: must be a finite number")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _did_you_mean(word: str, choices: Any) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _nearest_divisor(number: int, wanted: int) -> str:
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    return f" (the nearest that does is {min(divisors, key=lambda n: abs(n - wanted))})"
