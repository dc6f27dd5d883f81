"""From a trained model to text: sampling, the cached engine, exact streaming."""

from llm.generation.answer import answer
from llm.generation.classifying import classify
from llm.generation.engine import GREEDY, generate
from llm.generation.filling import fill, restore, show_hidden
from llm.generation.mode import inference
from llm.generation.packing import pack
from llm.generation.sampling import Sampling
from llm.generation.text import complete, decode_stream, stream_text, translate

__all__ = [
    "GREEDY",
    "Sampling",
    "answer",
    "classify",
    "complete",
    "decode_stream",
    "fill",
    "generate",
    "inference",
    "pack",
    "restore",
    "show_hidden",
    "stream_text",
    "translate",
]
