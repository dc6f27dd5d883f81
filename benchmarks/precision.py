"""What fewer bits cost a trained model: its perplexity on the run's own validation split, in each precision of `llm serve`.

    python benchmarks/precision.py runs/mine

The exit code is 1 where that of int8 is off by a hundredth or more of float32's.
"""

import argparse

import torch
from timing import machine, table

from llm import build
from llm.data.mixture import open_text
from llm.evaluation.perplexity import score_stream
from llm.train.run import Run

ALLOWED = 0.01


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="the folder of a run of task=causal_lm")
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-true", "int8"])
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(args.run)
    stream, found = open_text(run.begun["data"]).validation, {}
    for precision in args.precisions:
        net = build.for_inference(build.trained_model(run, None)[0], precision, args.batch_size)
        found[precision] = score_stream(net, stream, batch_size=args.batch_size)
    plain = found[args.precisions[0]]["perplexity"]
    changes = {precision: scores["perplexity"] / plain - 1 for precision, scores in found.items()}
    print(f"{machine(1)} {run.folder.name}, {found[args.precisions[0]]['tokens']:,} tokens.\n")
    rows = [
        [precision, f"{found[precision]['perplexity']:.4f}", f"{100 * change:+.3f}%"]
        for precision, change in changes.items()
    ]
    print(table(["precision", "perplexity", "change"], rows))
    return int(abs(changes.get("int8", 0.0)) >= ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
