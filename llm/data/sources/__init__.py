"""Where text comes from: one source a file, each named by a file in conf/data."""

from llm.data.sources.csv import Tables
from llm.data.sources.docstrings import Docstrings
from llm.data.sources.huggingface import HuggingFace
from llm.data.sources.jsonl import JsonLines
from llm.data.sources.stdlib import StandardLibrary
from llm.data.sources.text import TextFiles

__all__ = ["Docstrings", "HuggingFace", "JsonLines", "StandardLibrary", "Tables", "TextFiles"]
