"""The least time that a processor allows for a step which writes a token of each text: its products, and the weights it reads.

    python benchmarks/ceilings.py

Products are of whole numbers by FBGEMM, as `precision=int8` has them, and of float32 by torch's own, of matrices of 768 by
2,304; each is timed at so many rows that it is at its best. A step of GPT-2's shape multiplies 124 million weights for each
text, and reads them once. What attention, norms and Python take comes on top.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from timing import machine, table

WEIGHTS = 124e6
INPUTS, OUTPUTS = 768, 2304
BEST_ROWS = 512
TEXTS = (1, 8, 16)
SIZES = {"int8": 1, "float32": 4}  # bytes of a weight


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The least that a call took."""
    function()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def products(rows: int, repeats: int) -> dict[str, float]:
    """Billions of multiplications and additions a second, of each kind."""
    x, weight_oi = torch.rand(rows, INPUTS) * 2 - 1, torch.randn(OUTPUTS, INPUTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scales_o, zeros_o = weight_oi.abs().amax(1) / 127, torch.zeros(OUTPUTS, dtype=torch.long)
        packed = torch.ops.quantized.linear_prepack(
            torch.quantize_per_channel(weight_oi, scales_o, zeros_o, 0, torch.qint8), None
        )
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    count = rows * INPUTS * OUTPUTS / 1e9
    return {
        "int8": count / seconds(lambda: multiply(x, 1 / 63, 64, packed), repeats),
        "float32": count / seconds(lambda: torch.mm(x, weight_oi.t()), repeats),
    }


def reading(n_bytes: int, repeats: int) -> float:
    """Bytes a second, from one end of as many to the other."""
    weights = torch.ones(n_bytes // 8, dtype=torch.int64)
    return n_bytes / seconds(weights.sum, repeats)


def main() -> None:
    """Print the rates, and the least time of a step by each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="whether it works")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows, repeats = (8, 2) if args.quick else (BEST_ROWS, 20)
    rates, read = products(rows, repeats), reading(int(WEIGHTS) // (100 if args.quick else 1), repeats)
    print(f"{machine(args.threads)}\n")
    found: list[list[object]] = [
        ["products at best, billions a second", *(f"{rates[kind]:.1f}" for kind in SIZES)]
    ]
    for texts in TEXTS:
        least = [
            max(texts * WEIGHTS / rates[kind] / 1e9, size * WEIGHTS / read) for kind, size in SIZES.items()
        ]
        found.append([f"a step of {texts}, ms at least", *(f"{1e3 * one:.1f}" for one in least)])
    print(table(["", *SIZES], found))
    print(f"\n{read / 1e9:.1f} GB/s are read.")


if __name__ == "__main__":
    main()
