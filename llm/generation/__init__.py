"""From a trained model to text: sampling, the cached engine, exact streaming."""

from llm.generation.engine import GREEDY, generate
from llm.generation.mode import inference
from llm.generation.packing import pack
from llm.generation.sampling import Sampling
from llm.generation.text import complete, decode_stream, stream_text

__all__ = [
    "GREEDY",
    "Sampling",
    "complete",
    "decode_stream",
    "generate",
    "inference",
    "pack",
    "stream_text",
]
