"""The decoders that llama.cpp computes, as data: metadata and tensors both ways, and what they have no place for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from llm.errors import ConfigError
from llm.hub.gguf.library import library, shortest
from llm.hub.gpt2 import GPT2
from llm.hub.gpt_neox import GPT_NEOX
from llm.hub.llama import LLAMA
from llm.hub.qwen2 import QWEN2
from llm.hub.qwen3 import QWEN3
from llm.hub.rules import TRAINING_KEYS, Family, Shapes, State, Values, pairs, shapes_of
from llm.model import ModelConfig, RopeScaling
from llm.model.position import frequencies, stretch

ROPE_FACTORS = "rope_freqs.weight"
ORIGINAL_CONTEXT = "rope.scaling.original_context_length"
# What a file may say beyond our keys, with the only values that change nothing.
NEUTRAL = {
    "expert_count": 0,
    "attention.scale": 0.0,
    "rope.scaling.factor": 1.0,
    "rope.scaling.type": "none",
    "logit_scale": 1.0,
}
SIZES = {
    "d_model": ("embedding_length",),
    "n_layers": ("block_count",),
    "n_heads": ("attention.head_count",),
    "d_ff": ("feed_forward_length",),
    "context_length": ("context_length",),
}
GROUPED = {
    "n_kv_heads": ("attention.head_count_kv",),
    "head_dim": ("attention.key_length", "attention.value_length"),
}
DEFAULTS = {
    "attention.head_count_kv": None,
    "attention.key_length": None,
    "attention.value_length": None,
    "rope.freq_base": 10000.0,
}
LAYER_EPS = {"norm_eps": ("attention.layer_norm_epsilon",)}
RMS_EPS = {"norm_eps": ("attention.layer_norm_rms_epsilon",)}
THETA = {"rope_theta": ("rope.freq_base",)}


@dataclass(frozen=True)
class Architecture:
    """All that is known of one `general.architecture`; keys are without its name, which stands before each."""

    name: str
    family: Family  # whose modules the gguf package's table of names knows
    # Our key -> theirs of the same value; where there are several, they must agree.
    keys: Mapping[str, tuple[str, ...]]
    # What we must say to mean this architecture.
    constants: Mapping[str, Any]
    # Our switch -> the tensor of which a file has one where it is on.
    switches: Mapping[str, str] = field(default_factory=dict)
    # It turns neighbours of a head, elements i and i + 1, where we turn i and i + e/2: its rows are in that order.
    neighbours: bool = False
    # More keys, both ways, that do not correspond one to one.
    write_more: Callable[[ModelConfig], Values] = field(default=lambda config: {})
    read_more: Callable[[ModelConfig, Values, State], ModelConfig] = field(
        default=lambda config, said, state: config
    )

    def write_metadata(self, config: ModelConfig) -> Values:
        """Return the metadata of a model of `config`, which `problems` has let pass."""
        ours = config.resolved().to_dict()
        theirs = {their: ours[our] for our, names in self.keys.items() for their in names}
        theirs |= {"vocab_size": config.vocabulary} | self.write_more(config)
        return {f"{self.name}.{key}": value for key, value in theirs.items()}

    def read_config(self, metadata: Values, state: State) -> ModelConfig:
        """Return our config; of the tensors, only names, the embedding's shape and the rotary factors are read."""
        own = {key.removeprefix(f"{self.name}."): value for key, value in metadata.items()}
        for key, neutral in NEUTRAL.items():
            if own.get(key, neutral) != neutral:
                raise ConfigError(f"GGUF: {self.name}.{key}={own[key]!r} is not supported, only {neutral!r}")
        said = DEFAULTS | own
        values = {our: self._agreed(said, names) for our, names in self.keys.items()}
        values |= {our: tensor in state for our, tensor in self.switches.items()}
        values |= {"tie_embeddings": "output.weight" not in state, "vocab_size": _rows(state)}
        return self.read_more(ModelConfig.from_dict(values | dict(self.constants)), said, state)

    def _agreed(self, said: Values, names: tuple[str, ...]) -> Any:
        if missing := [name for name in names if name not in said]:
            raise ConfigError(f"GGUF: the file has no {self.name}.{missing[0]}")
        values = [said[name] for name in names]
        if any(value != values[0] for value in values):
            listed = ", ".join(f"{self.name}.{name}={said[name]}" for name in names)
            raise ConfigError(f"GGUF: {listed} must agree, since here they are one key")
        return values[0]

    def problems(self, config: ModelConfig) -> list[str]:
        """Return what this architecture cannot express of `config`: the keys that would not come back the same."""
        wanted = config.resolved().to_dict()
        metadata = {key: shortest(value) for key, value in self.write_metadata(config).items()}
        try:
            state = {name: torch.empty(shape, device="meta") for name, shape in self.expected(config).items()}
            returned = self.read_config(metadata, state | rope_factors(config)).resolved().to_dict()
        except ConfigError as error:
            return [str(error)]
        # What follows from a window is no problem of its own.
        implied = {"local_rope_theta"} if config.local_rope_theta is None else set()
        return [
            f"{key}={value} (it has {returned[key]})"
            for key, value in wanted.items()
            if key not in TRAINING_KEYS | implied and value != returned[key]
        ]

    def layout(self, config: ModelConfig) -> Iterator[tuple[str, list[str], int]]:
        """Yield each tensor's name, ours that it joins, and by how many heads its rows are reordered (0: as they are)."""
        gguf = library()
        kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == self.name)
        table = gguf.get_tensor_name_map(kind, config.n_layers)
        heads = {"query": config.n_heads, "key": config.kv_heads} if self.neighbours else {}
        for theirs, ours, _ in pairs(self.family, config):
            name = table.get_name(theirs, try_suffixes=(".weight", ".bias"))
            yield name, ours, heads.get(ours[0].split(".")[-2], 0)

    def to_theirs(self, config: ModelConfig, state: State) -> dict[str, Tensor]:
        """Convert our tensors to theirs; matrices are (out, in), whatever Hugging Face's class does."""
        return {
            name: _as_neighbours(_joined([state[our] for our in ours]), heads)
            for name, ours, heads in self.layout(config)
        }

    def to_ours(self, config: ModelConfig, state: State) -> dict[str, Tensor]:
        """Convert their tensors, which `expected` describes, to ours."""
        shapes = shapes_of(config)
        converted: dict[str, Tensor] = {}
        for name, ours, heads in self.layout(config):
            parts = _as_halves(state[name], heads).split([shapes[our][0] for our in ours])
            converted |= {our: part.contiguous() for our, part in zip(ours, parts, strict=True)}
        return converted

    def expected(self, config: ModelConfig) -> Shapes:
        """Return the name and shape of every tensor of a file of `config`."""
        empty = {name: torch.empty(shape, device="meta") for name, shape in shapes_of(config).items()}
        theirs = self.to_theirs(config, empty) | rope_factors(config)
        return {name: tensor.shape for name, tensor in theirs.items()}


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _as_neighbours(tensor: Tensor, heads: int) -> Tensor:
    """Let row i + e/2 of each head of e rows follow row i."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2) if heads else tensor


def _as_halves(tensor: Tensor, heads: int) -> Tensor:
    """Undo `_as_neighbours`."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2) if heads else tensor


def _rows(state: State) -> int:
    if "token_embd.weight" not in state:
        raise ConfigError("GGUF: the file has no token_embd.weight")
    return state["token_embd.weight"].shape[0]


def rope_factors(config: ModelConfig) -> dict[str, Tensor]:
    """Return the tensor that says by how much each rotary wavelength is stretched, where any is."""
    if config.rope_scaling is None:
        return {}
    plain_e = frequencies(config.rope_theta, config.rotary_size)
    return {ROPE_FACTORS: plain_e / stretch(plain_e, config.rope_scaling)}


def _write_rotary(config: ModelConfig) -> Values:
    scaling = config.rope_scaling
    context = {} if scaling is None else {ORIGINAL_CONTEXT: scaling.original_context_length}
    return {"rope.dimension_count": config.rotary_size} | context


def _read_rotary(config: ModelConfig, said: Values, state: State) -> ModelConfig:
    turned = said.get("rope.dimension_count", config.head_size)
    if not isinstance(turned, int):
        raise ConfigError(f"GGUF: rope.dimension_count={turned!r} must be a whole number")
    return replace(config, rotary_share=turned / config.head_size)


def _read_scaled(config: ModelConfig, said: Values, state: State) -> ModelConfig:
    """Read Llama 3.1's factors too, of which a file holds the outcome, not the settings: those that give the same."""
    config = _read_rotary(config, said, state)
    factors_e = state.get(ROPE_FACTORS)
    if factors_e is None:
        return config
    original = said.get(ORIGINAL_CONTEXT, RopeScaling.original_context_length)
    scaling = RopeScaling(factor=factors_e.max().item(), original_context_length=original)
    scaled = replace(config, rope_scaling=scaling)
    ours_e = rope_factors(scaled)[ROPE_FACTORS]
    if ours_e.shape != factors_e.shape or not torch.allclose(ours_e, factors_e, rtol=1e-5):
        raise ConfigError(
            f"GGUF: the factors in {ROPE_FACTORS} are not supported, only those of Llama 3.1 "
            f"(low_freq_factor=1, high_freq_factor=4; {ORIGINAL_CONTEXT}={original})"
        )
    return scaled


def _write_neox(config: ModelConfig) -> Values:
    return _write_rotary(config) | {"use_parallel_residual": config.residual == "parallel"}


def _read_neox(config: ModelConfig, said: Values, state: State) -> ModelConfig:
    parallel = said.get("use_parallel_residual", True)
    return _read_rotary(replace(config, residual="parallel" if parallel else "pre"), said, state)


_SWIGLU = {"norm": "rms", "residual": "pre", "position": "rotary", "activation": "swiglu"}
_LAYER_NORM = {"norm": "layer", "attention_bias": True, "mlp_bias": True}
# The first that can express a model is the one written.
ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="qwen3",
            family=QWEN3,
            keys=SIZES | GROUPED | RMS_EPS | THETA,
            constants=_SWIGLU | {"qk_norm": True, "attention_output_bias": False},
            switches={"attention_bias": "blk.0.attn_q.bias"},
            write_more=_write_rotary,
            read_more=_read_rotary,
        ),
        Architecture(
            name="qwen2",
            family=QWEN2,
            keys=SIZES | GROUPED | RMS_EPS | THETA,
            constants=_SWIGLU | {"attention_bias": True, "attention_output_bias": False},
            write_more=_write_rotary,
            read_more=_read_rotary,
        ),
        Architecture(
            name="llama",
            family=LLAMA,
            keys=SIZES | GROUPED | RMS_EPS | THETA,
            constants=_SWIGLU,
            switches={
                "attention_bias": "blk.0.attn_q.bias",
                "attention_output_bias": "blk.0.attn_output.bias",
                "mlp_bias": "blk.0.ffn_up.bias",
            },
            neighbours=True,
            write_more=_write_rotary,
            read_more=_read_scaled,
        ),
        Architecture(
            name="gpt2",
            family=GPT2,
            keys=SIZES | LAYER_EPS,
            constants=_LAYER_NORM | {"residual": "pre", "position": "learned", "activation": "gelu_tanh"},
        ),
        Architecture(
            name="gptneox",
            family=GPT_NEOX,
            keys=SIZES | LAYER_EPS | THETA,
            # llama.cpp computes this GELU by its tanh approximation, in a table of float16; Pythia's weights, all that
            # the architecture was made for, have the exact one.
            constants=_LAYER_NORM | {"position": "rotary", "activation": "gelu"},
            write_more=_write_neox,
            read_more=_read_neox,
        ),
    )
}


def architecture_for(config: ModelConfig) -> Architecture:
    """Return the first that can express `config`; a ConfigError names the keys and values that each has no place for."""
    if config.architecture != "decoder":
        raise ConfigError(
            f"architecture={config.architecture}: format=gguf is written of decoders alone; format=hf and format=onnx hold it"
        )
    config = seen_alike(config)
    problems = {name: entry.problems(config) for name, entry in ARCHITECTURES.items()}
    for name, found in problems.items():
        if not found:
            return ARCHITECTURES[name]
    closest = sorted(problems, key=lambda name: len(problems[name]))
    refusals = "; ".join(f"{name} has no place for {', '.join(problems[name])}" for name in closest)
    raise ConfigError(f"no GGUF architecture for this model: {refusals}")


def seen_alike(config: ModelConfig) -> ModelConfig:
    """Return `config` without a window that no text of its context reaches beyond, of which a file says nothing."""
    window = config.attention_window
    if window is None or window < config.context_length or config.global_attention_every:
        return config
    return replace(config, attention_window=None, local_rope_theta=None)
