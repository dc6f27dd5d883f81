"""CTranslate2's turns of benchmarks/decoding.py, in an environment of its own that has ctranslate2 and numpy.

    python -m venv venv_ct2 && venv_ct2/bin/pip install ctranslate2==4.8.5
    python benchmarks/decoding.py --ctranslate2 venv_ct2/bin/python

It makes a model of eight bits of the GPT-2 weights in an .npz file. Then each line that it reads, the rows of prompts and
how many tokens to write, is a turn: it answers with a line of the tokens and the seconds that they took.
"""

import json
import sys
import tempfile
import time
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

Arrays = dict[str, np.ndarray]


def set_norm(spec: Any, weights: Arrays, name: str) -> None:
    """A layer norm by its name in Hugging Face's GPT-2."""
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def set_linear(spec: Any, weights: Arrays, name: str) -> None:
    """A linear layer, whose matrix Hugging Face's GPT-2 keeps transposed."""
    spec.weight, spec.bias = np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"]


def spec_of(weights: Arrays, layers: int, heads: int) -> Any:
    """The model as CTranslate2 describes it."""
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        layers, heads, pre_norm=True, activation=common_spec.Activation.GELUTanh
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = weights["wte.weight"]
    decoder.position_encodings.encodings = weights["wpe.weight"]
    set_norm(decoder.layer_norm, weights, "ln_f")
    for number, layer in enumerate(decoder.layer):
        set_norm(layer.self_attention.layer_norm, weights, f"h.{number}.ln_1")
        set_linear(layer.self_attention.linear[0], weights, f"h.{number}.attn.c_attn")
        set_linear(layer.self_attention.linear[1], weights, f"h.{number}.attn.c_proj")
        set_norm(layer.ffn.layer_norm, weights, f"h.{number}.ln_2")
        set_linear(layer.ffn.linear_0, weights, f"h.{number}.mlp.c_fc")
        set_linear(layer.ffn.linear_1, weights, f"h.{number}.mlp.c_proj")
    spec.register_vocabulary([str(id_) for id_ in range(len(weights["wte.weight"]))])
    for token in ("bos_token", "eos_token", "unk_token"):
        setattr(spec.config, token, str(len(weights["wte.weight"]) - 1))
    spec.validate()
    spec.optimize(quantization="int8")
    return spec


def main() -> int:
    path, layers, heads, threads = sys.argv[1], *map(int, sys.argv[2:])
    with np.load(path) as file, tempfile.TemporaryDirectory() as folder:
        spec_of(dict(file), layers, heads).save(folder)
        generator = ctranslate2.Generator(folder, compute_type="int8", intra_threads=threads)
    print("ready", flush=True)
    for line in sys.stdin:
        rows, length = json.loads(line)
        prompts = [[str(id_) for id_ in row] for row in rows]
        began = time.perf_counter()
        found = generator.generate_batch(
            prompts, max_length=length, min_length=length, include_prompt_in_result=False
        )
        seconds = time.perf_counter() - began
        print(json.dumps([[one.sequences_ids[0] for one in found], seconds]), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
