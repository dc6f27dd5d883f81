"""Tokens per second of our cached engine beside Hugging Face's generate, on the same random weights of GPT-2's shape.

    python benchmarks/decoding.py
    python benchmarks/decoding.py --ctranslate2 venv_ct2/bin/python

Our model is made first and goes to Hugging Face through llm/hub. Both decode greedily from the same prompts, without
an end of text, taking turns in one process. In float32 both must give the same tokens, or the exit code is 1. Weights of
eight bits are ours beside Hugging Face's float32 and, where its environment is given, beside CTranslate2's eight bits, whose
process takes turns with this one (see decoding_ctranslate2.py).
"""

import argparse
import functools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from timing import Figures, Result, interleave, machine, paired_ratio, table
from torch import Tensor
from transformers import AutoConfig, GPT2LMHeadModel

from llm.generation import generate, pack, quantize
from llm.hub import to_huggingface
from llm.model import ModelConfig, Transformer, init_weights

GPT2 = ModelConfig(
    d_model=768,
    n_layers=12,
    n_heads=12,
    context_length=1024,
    vocab_size=50257,
    norm="layer",
    norm_eps=1e-5,
    position="learned",
    attention_bias=True,
    mlp_bias=True,
    activation="gelu_tanh",
    init_std=0.06,  # with 0.02 and tied embeddings the likeliest next token is the last one again
)
TINY = ModelConfig.from_dict(
    {**GPT2.to_dict(), "d_model": 64, "n_layers": 2, "n_heads": 2, "vocab_size": 256}
)
# Of ours, and of Hugging Face's beside it.
DTYPES = {
    "float32": (torch.float32, torch.float32),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "int8": (torch.int8, torch.float32),
}
CONTESTANT = Path(__file__).with_name("decoding_ctranslate2.py")

Decode = Callable[[Tensor], Tensor]


class CTranslate2:
    """A contestant in another process: what it writes, in its own time."""

    def __init__(self, python: str, config: ModelConfig, threads: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = Transformer(config).eval()
            init_weights(model, 0)
            tensors, _ = to_huggingface(model, config, model_type="gpt2")
            arrays = {name.removeprefix("transformer."): tensor.numpy() for name, tensor in tensors.items()}
            np.savez(f"{folder}/weights.npz", **arrays)
            words = [python, str(CONTESTANT), f"{folder}/weights.npz", str(config.n_layers), str(config.n_heads), str(threads)]  # fmt: skip
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self._answer() != "ready":
                raise SystemExit(f"{' '.join(words)} did not start.")

    def turn(self, prompt_bt: Tensor, new_tokens: int) -> Figures:
        """Its tokens a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([prompt_bt.tolist(), new_tokens]) + "\n")
        self._process.stdin.flush()
        rows, seconds = json.loads(self._answer())
        return {"tokens_per_second": sum(map(len, rows)) / seconds}

    def close(self) -> None:
        """End its process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def pair(
    config: ModelConfig, dtypes: tuple[torch.dtype, torch.dtype], rows: int, new_tokens: int
) -> dict[str, Decode]:
    """Both contestants: prompts (b, t) to new tokens (b, n)."""
    own, others = dtypes
    model = Transformer(config).eval()
    init_weights(model, 0)
    tensors, keys = to_huggingface(model, config, model_type="gpt2")
    theirs = GPT2LMHeadModel(AutoConfig.for_model(**keys)).eval()
    theirs.load_state_dict({**tensors, "lm_head.weight": tensors["transformer.wte.weight"]})
    model = quantize(model, rows) if own is torch.int8 else pack(model.to(own), rows)
    theirs = theirs.to(others)

    def our_tokens(prompt_bt: Tensor) -> Tensor:
        return torch.stack(list(generate(model, prompt_bt, max_new_tokens=new_tokens)), dim=1)

    def their_tokens(prompt_bt: Tensor) -> Tensor:
        tokens_bt = theirs.generate(
            prompt_bt,
            attention_mask=torch.ones_like(prompt_bt),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        return tokens_bt[:, prompt_bt.shape[1] :]

    return {"ours": our_tokens, "Hugging Face generate": their_tokens}


def speed(decode: Decode, prompt_bt: Tensor) -> Figures:
    """Tokens per second of one call, the prompt's own pass included."""
    began = time.perf_counter()
    tokens = decode(prompt_bt)
    return {"tokens_per_second": tokens.numel() / (time.perf_counter() - began)}


def compare(
    both: dict[str, Decode], prompt_bt: Tensor, rounds: int, third: CTranslate2 | None, new_tokens: int
) -> tuple[list[Result], bool]:
    """Warm up, see whether both agree, and let them take turns."""
    ours, theirs = (decode(prompt_bt) for decode in both.values())
    turns = {name: functools.partial(speed, decode, prompt_bt) for name, decode in both.items()}
    if third is not None:
        third.turn(prompt_bt, new_tokens)
        turns["CTranslate2"] = functools.partial(third.turn, prompt_bt, new_tokens)
    return interleave(turns, rounds), torch.equal(ours, theirs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--ctranslate2", help="the Python of an environment that has it")
    parser.add_argument("--quick", action="store_true", help="one round of a tiny shape: whether it works")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config, rounds = (TINY, 1) if args.quick else (GPT2, args.rounds)
    rows, disagreements = [], 0
    third = CTranslate2(args.ctranslate2, config, args.threads) if args.ctranslate2 else None
    for name, batch_size in product(args.dtypes, (1, 8)):
        prompt_bt = torch.randint(
            config.vocabulary,
            (batch_size, args.prompt_tokens),
            generator=torch.Generator().manual_seed(batch_size),
        )
        both = pair(config, DTYPES[name], batch_size, args.new_tokens)
        beside = third if name == "int8" else None
        (ours, *others), equal = compare(both, prompt_bt, rounds, beside, args.new_tokens)
        disagreements += name == "float32" and not equal
        key = "tokens_per_second"
        rows += [
            [
                name, batch_size, other.name, f"{ours.median(key):,.1f}", f"{other.median(key):,.1f}",
                f"{paired_ratio(ours, other, key):.2f}", ("yes" if equal else "no") if other is others[0] else "",
            ]
            for other in others
        ]  # fmt: skip
    if third is not None:
        third.close()
    print(f"{machine(args.threads)}\n")
    print(table(["", "batch", "beside", "ours, tokens/s", "theirs", "ratio", "same tokens"], rows))
    return int(disagreements > 0)


if __name__ == "__main__":
    raise SystemExit(main())
