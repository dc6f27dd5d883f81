"""Writing a model as ONNX, which ONNX Runtime runs: any batch, any length up to the context, padding by a mask.

Shapes: b batch, t time, s time of a source, d width, v vocabulary.
"""

import logging
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from llm.errors import ConfigError, missing_package
from llm.files import write_json
from llm.hub.bert import gives_states
from llm.hub.export import About
from llm.model import Transformer
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer
from llm.tokenizer.huggingface import to_backend, tokenizer_config

FILE = "model.onnx"
OPSET = 20
# A protobuf holds no more; weights of larger models lie in a file beside it.
LARGEST_FILE = 2_000_000_000


class TextModel(nn.Module):
    """A decoder or an encoder behind the inputs that Hugging Face's tokenizers make."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return logits (b, t, v) of tokens (b, t), or scores of the model's labels.

        Tokens of mask 0, at the end of a row, are seen by none of mask 1.
        """
        return self.model(input_ids, documents_bt=documents(attention_mask), segments_bt=token_type_ids)


class StatesModel(TextModel):
    """The same of a model that is there for its hidden states."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return hidden states (b, t, d) of tokens (b, t)."""
        return self.model.hidden_states(
            input_ids, documents_bt=documents(attention_mask), segments_bt=token_type_ids
        )


class PairModel(nn.Module):
    """An encoder-decoder behind such inputs: a source, and what of its target there is."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """Return logits (b, t, v) of a target (b, t) for a source (b, s)."""
        return self.model(
            decoder_input_ids, source_bs=input_ids, source_documents_bs=documents(attention_mask)
        )


def documents(attention_mask: Tensor) -> Tensor:
    """Return each position's document: one a row, and its padding where the mask is 0."""
    return torch.where(attention_mask == 0, PADDING, 0)


def write(folder: Path, model: Transformer, tokenizer: Tokenizer, about: About) -> list[str]:
    """Write `model.onnx` in float32, and the tokenizer in a folder beside it; returns the lines to type next.

    A ConfigError says what stands in the way, before anything is written.
    """
    _check(model, about.out)
    backend, inputs = to_backend(tokenizer), example(model)
    decoder = model.config.architecture == "decoder"
    settings = tokenizer_config(tokenizer, model.config.context_length, as_text=decoder)
    _export(model, inputs, folder / FILE)
    (folder / "tokenizer").mkdir()
    backend.save(str(folder / "tokenizer" / "tokenizer.json"))
    write_json(folder / "tokenizer" / "tokenizer_config.json", settings)
    if model.config.labels:
        write_json(folder / "labels.json", list(model.config.labels))
    return _next(about, list(inputs))


def _check(model: Transformer, out: Path) -> None:
    if model.config.prefix_lm:
        raise ConfigError("prefix_lm=True: format=onnx has no input for where a prompt ends")
    dtype = next(model.parameters()).dtype
    if dtype is not torch.float32:
        name = str(dtype).removeprefix("torch.")
        raise ConfigError(f"dtype={name}: format=onnx is written in float32; leave dtype= out")
    if out.suffix == ".onnx":
        raise ConfigError(f"out={out}: format=onnx makes a folder, of the model and its tokenizer; name one")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_package("format=onnx", str(error.name), "export") from None


def example(model: Transformer) -> dict[str, Tensor]:
    """Return inputs of the smallest sizes that tell an axis of any length from one of a fixed length."""
    config = model.config
    tokens_bt = torch.zeros(2, min(3, config.context_length), dtype=torch.long)
    inputs = {"input_ids": tokens_bt, "attention_mask": torch.ones_like(tokens_bt)}
    if config.architecture == "encoder_decoder":
        inputs["decoder_input_ids"] = torch.zeros(2, min(2, config.context_length), dtype=torch.long)
    elif config.n_segments:
        inputs["token_type_ids"] = torch.zeros_like(tokens_bt)
    return inputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch's exporter says of packages and names that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _wrapped(model: Transformer) -> tuple[nn.Module, str]:
    """The model behind its inputs, and what it gives."""
    if model.config.architecture == "encoder_decoder":
        return PairModel(model), "logits"
    return (
        (StatesModel(model), "last_hidden_state")
        if gives_states(model.config)
        else (TextModel(model), "logits")
    )


# What needs gradients takes another kernel, of whose strides the exporter stumbles.
@torch.no_grad()
def _export(model: Transformer, inputs: dict[str, Tensor], path: Path) -> None:
    wrapped, output = _wrapped(model)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    with _quiet():
        torch.onnx.export(
            wrapped.eval(),
            kwargs=inputs,
            f=path,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=_axes(inputs, model.config.context_length),
            external_data=size > LARGEST_FILE,
            verbose=False,
        )


def _axes(inputs: dict[str, Tensor], longest: int) -> dict[str, dict[int, torch.export.Dim]]:
    batch = torch.export.Dim("batch")
    time = torch.export.Dim("time", max=longest)
    target = torch.export.Dim("target_time", max=longest)
    return {name: {0: batch, 1: target if name.startswith("decoder") else time} for name in inputs}


# What stands for each input in the line to type next, of an encoding by the `tokenizers` library.
SHOWN = {
    "input_ids": "e.ids",
    "attention_mask": "e.attention_mask",
    "token_type_ids": "e.type_ids",
    "decoder_input_ids": "e.ids[:1]",
}


def _next(about: About, inputs: Sequence[str]) -> list[str]:
    given = ", ".join(f"{name!r}: [{SHOWN[name]}]" for name in inputs)
    code = (
        f"import onnxruntime, tokenizers; folder = {str(about.out)!r}; "
        f"session = onnxruntime.InferenceSession(folder + '/{FILE}'); "
        "e = tokenizers.Tokenizer.from_file(folder + '/tokenizer/tokenizer.json').encode('def main():'); "
        f"print(session.run(None, {{{given}}})[0].shape)"
    )
    return [f"python -c {shlex.quote(code)}"]
