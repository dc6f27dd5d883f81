"""From a trained model to text: sampling, the cached engine, exact streaming."""

from llm.generation.answer import answer
from llm.generation.batching import BatchEngine, Request, Token, goes_on, rows_within
from llm.generation.classifying import classify
from llm.generation.engine import GREEDY, generate
from llm.generation.filling import fill, restore, show_hidden
from llm.generation.mode import inference
from llm.generation.packing import pack
from llm.generation.quantization import quantize
from llm.generation.rules import Bias, Penalties
from llm.generation.sampling import Sampling
from llm.generation.template import OwnTemplate, PlainTemplate, Template, template_of
from llm.generation.text import TextWriter, complete, decode_stream, stream_text, translate

__all__ = [
    "GREEDY",
    "BatchEngine",
    "Bias",
    "OwnTemplate",
    "Penalties",
    "PlainTemplate",
    "Request",
    "Sampling",
    "Template",
    "TextWriter",
    "Token",
    "answer",
    "classify",
    "complete",
    "decode_stream",
    "fill",
    "generate",
    "goes_on",
    "inference",
    "pack",
    "quantize",
    "restore",
    "rows_within",
    "show_hidden",
    "stream_text",
    "template_of",
    "translate",
]
