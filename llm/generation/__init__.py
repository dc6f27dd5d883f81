"""From a trained model to text: sampling, the cached engine, exact streaming."""

from llm.generation.engine import GREEDY, generate
from llm.generation.filling import fill, show_hidden
from llm.generation.mode import inference
from llm.generation.packing import pack
from llm.generation.sampling import Sampling
from llm.generation.text import complete, decode_stream, stream_text

__all__ = [
    "GREEDY",
    "Sampling",
    "complete",
    "decode_stream",
    "fill",
    "generate",
    "inference",
    "pack",
    "show_hidden",
    "stream_text",
]
