"""What a model is worth in numbers: likelihood, compression, code that parses."""

from llm.evaluation.code import parse_share, parses
from llm.evaluation.compression import xz_bits_per_byte
from llm.evaluation.perplexity import score_stream
from llm.evaluation.result import Result, Row
from llm.evaluation.suite import EVALUATIONS, Subject

__all__ = [
    "EVALUATIONS",
    "Result",
    "Row",
    "Subject",
    "parse_share",
    "parses",
    "score_stream",
    "xz_bits_per_byte",
]
