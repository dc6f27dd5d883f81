"""`llm export`: write a run's model for other programs."""

ABOUT = """Write a run's model and tokenizer in a format that other programs load: whole, or not at all. What the format
has no name for is said before anything is written."""

EXAMPLES = {
    "run=runs/mine out=mine-hf dtype=bfloat16": "a folder for transformers and vLLM, with a model card",
    "run=runs/mine out=mine.gguf format=gguf": "one file for llama.cpp and Ollama",
    "run=runs/mine out=mine-onnx format=onnx": "a folder for ONNX Runtime",
}
