"""Tokens per second of our cached engine beside Hugging Face's generate, on the same random weights of GPT-2's shape.

    python benchmarks/decoding.py

Our model is made first and goes to Hugging Face through llm/hub. Both decode greedily from the same prompts, without
an end of text, taking turns in one process. In float32 both must give the same tokens, or the exit code is 1.
"""

import argparse
import functools
import time
from collections.abc import Callable
from itertools import product

import torch
from timing import Figures, Result, interleave, machine, paired_ratio, table
from torch import Tensor
from transformers import AutoConfig, GPT2LMHeadModel

from llm.generation import generate, pack
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
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

Decode = Callable[[Tensor], Tensor]


def pair(config: ModelConfig, dtype: torch.dtype, rows: int, new_tokens: int) -> dict[str, Decode]:
    """Both contestants: prompts (b, t) to new tokens (b, n)."""
    model = Transformer(config).eval()
    init_weights(model, 0)
    tensors, keys = to_huggingface(model, config, model_type="gpt2")
    theirs = GPT2LMHeadModel(AutoConfig.for_model(**keys)).eval()
    theirs.load_state_dict({**tensors, "lm_head.weight": tensors["transformer.wte.weight"]})
    model, theirs = pack(model.to(dtype), rows), theirs.to(dtype)

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


def compare(both: dict[str, Decode], prompt_bt: Tensor, rounds: int) -> tuple[list[Result], bool]:
    """Warm up, see whether both agree, and let them take turns."""
    ours, theirs = (decode(prompt_bt) for decode in both.values())
    turns = {name: functools.partial(speed, decode, prompt_bt) for name, decode in both.items()}
    return interleave(turns, rounds), torch.equal(ours, theirs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="one round of a tiny shape: whether it works")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config, rounds = (TINY, 1) if args.quick else (GPT2, args.rounds)
    rows, disagreements = [], 0
    for (name, dtype), batch_size in product(DTYPES.items(), (1, 8)):
        prompt_bt = torch.randint(
            config.vocabulary,
            (batch_size, args.prompt_tokens),
            generator=torch.Generator().manual_seed(batch_size),
        )
        (ours, theirs), equal = compare(pair(config, dtype, batch_size, args.new_tokens), prompt_bt, rounds)
        disagreements += name == "float32" and not equal
        ratio = f"{paired_ratio(ours, theirs, 'tokens_per_second'):.2f}"
        speeds = [f"{one.median('tokens_per_second'):,.1f}" for one in (ours, theirs)]
        rows.append([name, batch_size, *speeds, ratio, "yes" if equal else "no"])
    print(f"{machine(args.threads)}\n")
    print(table(["", "batch", "ours, tokens/s", "Hugging Face", "ratio", "same tokens"], rows))
    return int(disagreements > 0)


if __name__ == "__main__":
    raise SystemExit(main())
