"""What a model is worth in numbers: likelihood, compression, code that parses."""

from llm.evaluation.code import parse_share, parses
from llm.evaluation.compression import xz_bits_per_byte
from llm.evaluation.perplexity import score_stream
from llm.evaluation.suite import EVALUATIONS, Result, Subject

__all__ = ["EVALUATIONS", "Result", "Subject", "parse_share", "parses", "score_stream", "xz_bits_per_byte"]
