"""`llm export`: write a run's model for other programs."""

from collections.abc import Sequence

ABOUT = """Write a run's model and tokenizer in a format that other programs load: whole, or not at all. What the format
has no name for is said before anything is written."""

EXAMPLES = {
    "run=runs/mine out=mine-hf": "a folder for transformers and vLLM, with a model card",
    "run=runs/mine out=mine-bf16 dtype=bfloat16 checkpoint=step_00000500": "half the size, of an earlier step",
    "run=runs/mine out=mine.gguf format=gguf": "one file for llama.cpp and Ollama",
    "run=runs/mine out=mine-onnx format=onnx": "a folder for ONNX Runtime",
    "run=runs/mine out=mine-small shard_bytes=500000000": "in files of at most 500 MB",
}


def run(argv: Sequence[str]) -> int:
    """Compose, build, export; returns the exit code."""
    from llm.cli.compose import compose

    composed = compose("export", argv)
    from llm.jobs import export

    return export.run(composed.config, composed.choices)
