"""Writing a decoder and its tokenizer as one .gguf file, which llama.cpp, Ollama and their relatives run."""

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.errors import ConfigError
from llm.hub.export import About
from llm.hub.gguf import tokens
from llm.hub.gguf.architectures import architecture_for, rope_factors
from llm.hub.gguf.library import library
from llm.model import Transformer
from llm.tokenizer import Tokenizer

FILE = "model.gguf"
FILE_TYPES = {torch.float32: "ALL_F32", torch.float16: "MOSTLY_F16", torch.bfloat16: "MOSTLY_BF16"}
# llama.cpp adds these to float32, whatever matrices are in.
ALWAYS_FLOAT32 = ("_norm.weight", "position_embd.weight")


def write(folder: Path, model: Transformer, tokenizer: Tokenizer, about: About) -> list[str]:
    """Write `model.gguf` into `folder`, its matrices in the model's dtype; returns the lines to type next.

    A ConfigError names, before anything is written, what GGUF has no place for.
    """
    dtype = next(model.parameters()).dtype
    if dtype not in FILE_TYPES:
        known = ", ".join(str(kind).removeprefix("torch.") for kind in FILE_TYPES)
        raise ConfigError(f"dtype={str(dtype).removeprefix('torch.')}: GGUF has {known}")
    architecture = architecture_for(model.config)
    metadata = tokens.write(tokenizer, model.config.vocabulary)
    metadata |= architecture.write_metadata(model.config) | {"general.name": about.name}
    theirs = architecture.to_theirs(model.config, model.state_dict()) | rope_factors(model.config)
    writer = file_writer(folder / FILE, architecture.name)
    writer.add_file_type(library().LlamaFileType[FILE_TYPES[dtype]])
    for key, value in metadata.items():
        _add_value(writer, key, value)
    for name, tensor in theirs.items():
        _add_tensor(writer, name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return _next(about)


def file_writer(path: Path, architecture: str) -> Any:
    """The package's writer of one file."""
    gguf = library()

    class Writer(gguf.GGUFWriter):  # type: ignore[name-defined]
        """Writes an empty array of strings too: the merges of a tokenizer that merges nothing, which llama.cpp wants."""

        def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> bytes:
            if vtype != gguf.GGUFValueType.ARRAY or len(val):
                return super()._pack_val(val, vtype, add_vtype, sub_type)
            return self._pack("I", vtype) + self._pack("I", gguf.GGUFValueType.STRING) + self._pack("Q", 0)

    return Writer(path, architecture)


def _add_value(writer: Any, key: str, value: Any) -> None:
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: partial(writer.add_key_value, vtype=library().GGUFValueType.ARRAY),
    }
    add[type(value)](key, value)


def _add_tensor(writer: Any, name: str, tensor: Tensor) -> None:
    gguf = library()
    tensor = tensor.detach().contiguous()
    if tensor.dim() == 1 or name.endswith(ALWAYS_FLOAT32):
        tensor = tensor.float()
    if tensor.dtype is torch.bfloat16:  # which numpy lacks
        writer.add_tensor(name, tensor.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, tensor.numpy())


def _next(about: About) -> list[str]:
    path, name = str(about.path(FILE)), shlex.quote(about.name.lower())
    code = (
        f"from llama_cpp import Llama; model = Llama({path!r}, verbose=False); "
        "print(model('def main():', max_tokens=100)['choices'][0]['text'])"
    )
    return [
        f"python -c {shlex.quote(code)}    # pip install llama-cpp-python",
        f"llama-server -m {shlex.quote(path)}",
        f"echo FROM {shlex.quote(path)} > Modelfile && ollama create {name} -f Modelfile && ollama run {name}",
    ]
