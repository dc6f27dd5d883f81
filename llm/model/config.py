"""The shape of a transformer as a frozen dataclass: every key, its default, and the checks that stop a bad one."""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from llm.errors import ConfigError

Architecture = Literal["decoder", "encoder", "encoder_decoder"]
NormKind = Literal["layer", "rms"]
Placing = Literal["pre", "post", "parallel"]
PositionKind = Literal["learned", "sinusoidal", "rotary", "relative", "none"]
Activation = Literal["gelu", "gelu_tanh", "relu", "relu2", "swiglu", "geglu", "geglu_tanh"]
HeadKind = Literal["linear", "transformed"]
LabelledKind = Literal["text", "words", "answer", "number"]

GATED: frozenset[str] = frozenset({"swiglu", "geglu", "geglu_tanh"})
# Keys that act under position=rotary alone, with what they are elsewhere.
ROTARY_KEYS = {"rope_scaling": None, "rotary_share": 1.0, "local_rope_theta": None}
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

    architecture: Architecture = "decoder"  # which stacks there are; only a decoder is causal
    d_model: int = 256
    n_layers: int = 6  # of the decoder where there are both
    n_encoder_layers: int | None = None  # n_layers; for encoder_decoder
    n_heads: int = 4
    n_kv_heads: int | None = None  # n_heads; fewer is grouped-query attention, 1 is multi-query
    head_dim: int | None = None  # d_model / n_heads
    d_ff: int | None = None  # 4 * d_model, or 8/3 of it up to a multiple of 64 when gated
    context_length: int = 256  # the most tokens that one forward pass may see, cache included
    vocab_size: int | None = None  # the tokenizer's; must be known before the model is built
    prefix_lm: bool = False  # a decoder reads a prompt on both sides; the task's
    dropout: float = 0.0  # on embeddings, attention weights and what each sublayer adds
    norm: NormKind = "rms"
    norm_eps: float = 1e-6
    norm_bias: bool = True  # layer norm alone has one
    residual: Placing = "pre"
    position: PositionKind = "rotary"
    rope_theta: float = 10000.0
    local_rope_theta: float | None = None  # rope_theta; for layers that look through attention_window
    rope_scaling: RopeScaling | None = None
    rotary_share: float = 1.0  # of each head's width, from its start, that RoPE turns: partial_rotary_factor
    relative_buckets: int = 32  # distances that position=relative tells apart
    relative_distance: int = 128  # from where on position=relative tells no distances apart
    attention_window: int | None = None  # a position sees those less than this far away; null for all
    global_attention_every: int | None = (
        None  # every so many layers, from the first on, one without the window
    )
    attention_scale: float | None = None  # of queries times keys; null for 1 / sqrt(head_dim)
    qk_norm: bool = False  # normalise each head's queries and keys before the rotation, as Qwen3 does
    attention_bias: bool = False
    attention_output_bias: bool | None = None  # attention_bias; for what attention writes into the stream
    mlp_bias: bool = False
    activation: Activation = "swiglu"
    scale_embeddings: bool = False  # token embeddings times sqrt(d_model), as in the Transformer of 2017
    embedding_norm: bool = False  # normalise what enters the first layer, as BERT does
    n_segments: int = (
        0  # kinds of text that tokens can be told apart by, such as BERT's first and second sentence
    )
    tie_embeddings: bool = True
    head: HeadKind = "linear"  # transformed: BERT's layer, activation and norm before the scores
    head_bias: bool = False  # one number a token added to its score
    scale_logits: bool = False  # hidden states divided by sqrt(d_model) before the scores, as in the first T5
    pooler: bool = False  # BERT's layer and tanh over the first position
    labels: tuple[
        str, ...
    ] = ()  # what texts or tokens are told apart by, in place of the vocabulary; the data's
    labelled: LabelledKind = "text"  # what the labels tell: a text, each word, an answer's edges; or a number
    number_mean: float = 0.0  # of the numbers that labelled=number tells, in the training text
    number_std: float = 1.0  # their standard deviation
    logit_soft_cap: float | None = None  # logits become cap * tanh(logits / cap)
    init_std: float = 0.02
    zero_init_outputs: bool = False  # each sublayer adds 0 at first: a pre-norm block is then the identity

    def __post_init__(self) -> None:
        self._check_types()
        self._check_sizes()
        self._check_heads()
        self._check_ranges()
        self._check_together()

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def encoder_layers(self) -> int:
        """Number of the encoder's layers."""
        if self.architecture == "decoder":
            return 0
        if self.architecture == "encoder" or self.n_encoder_layers is None:
            return self.n_layers
        return self.n_encoder_layers

    @property
    def output_bias(self) -> bool:
        """Whether what attention writes into the stream has a bias."""
        return self.attention_bias if self.attention_output_bias is None else self.attention_output_bias

    @property
    def rotary_size(self) -> int:
        """How much of a head's width is turned."""
        return int(self.head_size * self.rotary_share)

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
            "attention_output_bias": self.output_bias,
        }
        if self.architecture == "encoder_decoder":
            values["n_encoder_layers"] = self.encoder_layers
        if self.labels:
            values |= {"head": "linear", "head_bias": False, "scale_logits": False, "logit_soft_cap": None}
        if self.norm == "rms":
            values["norm_bias"] = True
        if self.position != "rotary":
            values["rope_theta"] = 10000.0
        elif self.attention_window is not None:
            values["local_rope_theta"] = self.local_rope_theta or self.rope_theta
        if self.position != "relative":
            values |= {"relative_buckets": 32, "relative_distance": 128}
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
        optional = ("n_encoder_layers", "n_kv_heads", "head_dim", "d_ff", "vocab_size", "attention_window")
        sizes = ("d_model", "n_layers", "n_heads", "context_length", "relative_buckets", "relative_distance")
        for key in (*sizes, *optional, "global_attention_every"):
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
            self.position != "rotary" or self.rotary_size % 2 == 0,
            "head_dim" if self.rotary_share == 1 else "rotary_share",
            f"position=rotary turns pairs, so what it turns of a head must be of even width, not {self.rotary_size}",
        )
        self._require(
            self.position != "sinusoidal" or self.d_model % 2 == 0,
            "d_model",
            "must be even for position=sinusoidal",
        )

    def _check_ranges(self) -> None:
        self._require(0 <= self.dropout < 1, "dropout", "must be at least 0 and below 1")
        self._require(self.norm_eps > 0, "norm_eps", "must be positive")
        for key in ("rope_theta", "init_std", "number_std"):
            self._require(getattr(self, key) > 0, key, "must be positive")
        for key in ("local_rope_theta", "attention_scale", "logit_soft_cap"):
            value = getattr(self, key)
            self._require(value is None or value > 0, key, "must be positive, or null for none")
        self._require(0 < self.rotary_share <= 1, "rotary_share", "must be above 0 and at most 1")
        self._require(0 <= self.n_segments <= LARGEST_SIZE, "n_segments", "must not be negative")

    def _check_together(self) -> None:
        """Refuse keys that would not act beside the others."""
        for key, default in ROTARY_KEYS.items():
            self._require(
                self.position == "rotary" or getattr(self, key) == default,
                key,
                f"is for position=rotary, not {self.position}",
            )
        for key in ("global_attention_every", "local_rope_theta"):
            unused = getattr(self, key) is not None and self.attention_window is None
            self._require(not unused, key, "is for models with an attention_window")
        self._require(
            self.n_encoder_layers is None or self.architecture == "encoder_decoder",
            "n_encoder_layers",
            f"is for architecture=encoder_decoder, not {self.architecture}; n_layers counts an encoder's",
        )
        self._require(
            not self.prefix_lm or self.architecture == "decoder",
            "prefix_lm",
            f"is for architecture=decoder, not {self.architecture}",
        )
        self._require(
            not self.labels or self.architecture != "encoder_decoder",
            "labels",
            "is for architecture=encoder and decoder",
        )
        self._require(len(set(self.labels)) == len(self.labels), "labels", "must be distinct")
        self._require(bool(self.labels) or self.labelled == "text", "labelled", "is for models with labels")
        self._require(
            not self.pooler or self.architecture == "encoder",
            "pooler",
            f"is for architecture=encoder, not {self.architecture}",
        )


def _coerce(hint: Any, value: Any) -> Any:
    """Nested mappings become their dataclass and whole numbers floats, where the key wants that."""
    wanted = _alternatives(hint)
    for kind in wanted:
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return kind.from_dict(value)  # type: ignore[union-attr]
    if float in wanted and type(value) is int:
        return float(value)
    return tuple(value) if get_origin(hint) is tuple and isinstance(value, list) else value


def _check_type(key: str, hint: Any, value: Any) -> None:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            hint_text = _did_you_mean(str(value), choices)
            raise ConfigError(f"{key}={value!r}: must be one of {', '.join(choices)}{hint_text}")
    elif get_origin(hint) is tuple:
        if type(value) is not tuple or not all(type(one) is str for one in value):
            raise ConfigError(f"{key}={value!r}: must be a list of texts")
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
