"""From a trained model to text: sampling, the cached engine, exact streaming."""

from llm.generation.abilities import continues_prompt, is_decoder_lm, is_generative, kind_of, responds_whole
from llm.generation.batching import BatchEngine, rows_within
from llm.generation.classifying import classify, estimate
from llm.generation.engine import GREEDY, generate
from llm.generation.extracting import LONGEST_ANSWER, Extracted, Passage, extract
from llm.generation.filling import fill, restore, show_hidden
from llm.generation.mode import inference
from llm.generation.offline import write_texts
from llm.generation.packing import pack
from llm.generation.quantization import quantize
from llm.generation.request import Request, Token
from llm.generation.respond import respond
from llm.generation.rules import Bias, Penalties
from llm.generation.sampling import Sampling
from llm.generation.speculation import Draft
from llm.generation.tagging import Mention, TaggedWord, TextWords, mentions, tagged_words, word_scores
from llm.generation.template import OwnTemplate, PlainTemplate, Template, template_of
from llm.generation.text import TextWriter, complete, decode_stream, stream_text, translate

__all__ = [
    "GREEDY",
    "LONGEST_ANSWER",
    "BatchEngine",
    "Bias",
    "Draft",
    "Extracted",
    "Mention",
    "OwnTemplate",
    "Passage",
    "Penalties",
    "PlainTemplate",
    "Request",
    "Sampling",
    "TaggedWord",
    "Template",
    "TextWords",
    "TextWriter",
    "Token",
    "classify",
    "complete",
    "continues_prompt",
    "decode_stream",
    "estimate",
    "extract",
    "fill",
    "generate",
    "inference",
    "is_decoder_lm",
    "is_generative",
    "kind_of",
    "mentions",
    "pack",
    "quantize",
    "respond",
    "responds_whole",
    "restore",
    "rows_within",
    "show_hidden",
    "stream_text",
    "tagged_words",
    "template_of",
    "translate",
    "word_scores",
    "write_texts",
]
