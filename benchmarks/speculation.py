"""One text by the engine, with guesses from repetitions and without: new tokens a second of CPU time.

    python benchmarks/speculation.py

GPT-2's shape. Random weights repeat nothing by themselves, so a bias makes them write a text that is said here: lines of the
prompt again, with every twelfth token another (what an edited copy is), or no repetition at all, which shows what guessing
costs where it is no use. All of the model's work is done in either case.
"""

import argparse
import functools
import time
from collections.abc import Sequence

import torch
from decoding import GPT2
from timing import Figures, interleave, machine, paired_ratio, table
from torch import Tensor

from llm.generation import BatchEngine, Request, pack
from llm.model import Transformer, init_weights

PROMPT = list(range(1000, 1096))
KINDS = {
    "an edited copy": [token + 5000 * (index % 12 == 11) for index, token in enumerate(PROMPT)],
    "nothing repeated": list(range(9000, 9096)),
}


def turn(model: Transformer, speculate: int, text: list[int]) -> Figures:
    """Write `text`."""
    new_tokens = len(text)

    def said(logits_1v: Tensor, new: Sequence[int]) -> Tensor:
        return logits_1v.index_fill(1, torch.tensor([text[len(new)]]), 1000.0)

    engine = BatchEngine(model, rows=1, speculate=speculate)
    engine.add(Request([*PROMPT, *PROMPT[:2]], new_tokens, rules=[said]))
    engine.step()
    began, steps = time.process_time(), 0
    while engine.busy:
        engine.step()
        steps += 1
    seconds = time.process_time() - began
    return {"tokens_per_second": (new_tokens - 1) / seconds, "tokens_per_step": (new_tokens - 1) / steps}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speculate", type=int, nargs="+", default=[4, 8])
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        model = Transformer(GPT2).eval()
        init_weights(model, 0)
        pack(model.to(dtype), 1)
        for kind, text in KINDS.items():
            turns = {
                str(number): functools.partial(turn, model, number, text) for number in [*args.speculate, 0]
            }
            results = interleave(turns, args.rounds)
            for result in results:
                ratio = paired_ratio(result, results[-1], "tokens_per_second")
                figures = [result.median(key) for key in ("tokens_per_second", "tokens_per_step")]
                rows.append(
                    [
                        str(dtype)[6:],
                        kind,
                        result.name,
                        *(f"{figure:.1f}" for figure in figures),
                        f"{ratio:.2f}",
                    ]
                )
    print(f"{machine(1)}\n")
    print(table(["", "text", "speculate", "tokens/s", "tokens/step", "ratio"], rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
