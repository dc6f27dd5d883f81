"""Where text comes from: one source a file, each named by a file in conf/data."""

from llm.data.sources.books import Books
from llm.data.sources.common_crawl import CommonCrawl
from llm.data.sources.conll import Conll
from llm.data.sources.csv import Tables
from llm.data.sources.docstrings import CodePreferences, DocstringChats, Docstrings
from llm.data.sources.huggingface import HuggingFace
from llm.data.sources.jsonl import JsonLines, PreferenceLines
from llm.data.sources.packages import Packages
from llm.data.sources.parquet import ParquetFiles
from llm.data.sources.signatures import SignatureQuestions
from llm.data.sources.squad import Squad
from llm.data.sources.stdlib import StandardLibrary
from llm.data.sources.text import TextFiles
from llm.data.sources.token_kinds import TokenKinds
from llm.data.sources.wikipedia import Wikipedia

__all__ = [
    "Books",
    "CodePreferences",
    "CommonCrawl",
    "Conll",
    "DocstringChats",
    "Docstrings",
    "HuggingFace",
    "JsonLines",
    "Packages",
    "ParquetFiles",
    "PreferenceLines",
    "SignatureQuestions",
    "Squad",
    "StandardLibrary",
    "Tables",
    "TextFiles",
    "TokenKinds",
    "Wikipedia",
]
