"""What fewer bits cost a trained model: its perplexity on held-out text, in each precision of `llm serve`.

    python benchmarks/precision.py runs/mine
    python benchmarks/precision.py SmolLM2-135M-Instruct.gguf --text tinyshakespeare.txt

The text is the run's own validation split or, of a Hugging Face folder or a .gguf file, the end of `--text`. The exit code
is 1 where the perplexity of int8 is off by a hundredth or more of float32's.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timing import machine, table

from llm import build
from llm.data.mixture import open_text
from llm.evaluation.perplexity import Stream, score_stream
from llm.tokenizer import Tokenizer
from llm.train.run import Run

ALLOWED = 0.01


@dataclass(frozen=True)
class Document:
    """One text as a stream."""

    ids: np.ndarray
    n_bytes: int

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The ids (n, length) that begin at `starts`."""
        return np.stack([self.ids[start : start + length] for start in starts])


def end_of(path: str, n_bytes: int, tokenizer: Tokenizer) -> Document:
    """The last `n_bytes` of a file of text, or a few less where a character was cut."""
    text = Path(path).read_bytes()[-n_bytes:].decode(errors="ignore")
    ids = np.asarray([tokenizer.end_of_text, *tokenizer.encode(text)], dtype=np.int64)
    return Document(ids, len(text.encode()))


def held_out(start: str, text: str | None, n_bytes: int) -> Stream:
    """What is scored."""
    if text is None:
        return open_text(Run.open(start).begun["data"]).validation
    return end_of(text, n_bytes, build.usable_model(start, None)[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "start", help="the folder of a run of task=causal_lm, a Hugging Face folder or a .gguf file"
    )
    parser.add_argument("--text", help="a file of text")
    parser.add_argument("--bytes", type=int, default=24_000, help="how much of the end of --text is scored")
    parser.add_argument("--context", type=int, help="tokens of a window, by default the model's")
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-true", "int8"])
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    stream, found = held_out(args.start, args.text, args.bytes), {}
    for precision in args.precisions:
        net = build.for_inference(build.usable_model(args.start, None)[0], precision, args.batch_size)
        found[precision] = score_stream(net, stream, batch_size=args.batch_size, context_length=args.context)
    plain = found[args.precisions[0]]["perplexity"]
    changes = {precision: scores["perplexity"] / plain - 1 for precision, scores in found.items()}
    print(f"{machine(1)} {Path(args.start).name}, {found[args.precisions[0]]['tokens']:,} tokens.\n")
    rows = [
        [precision, f"{found[precision]['perplexity']:.4f}", f"{100 * change:+.3f}%"]
        for precision, change in changes.items()
    ]
    print(table(["precision", "perplexity", "change"], rows))
    return int(abs(changes.get("int8", 0.0)) >= ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
