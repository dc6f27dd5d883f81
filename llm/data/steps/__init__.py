"""What is done to documents between the source and the tokenizer: one small class a step, ordered by the config."""

from llm.data.steps.base import Result, Step, TextStep
from llm.data.steps.contamination import Contamination
from llm.data.steps.duplicates import DuplicateLines, NearDuplicates
from llm.data.steps.language import Language
from llm.data.steps.rules import C4, FineWeb, GopherQuality, GopherRepetition, Length
from llm.data.steps.text import FixText, LowerCase, NoSpecialCharacters, PlainPunctuation

__all__ = [
    "C4",
    "Contamination",
    "DuplicateLines",
    "FineWeb",
    "FixText",
    "GopherQuality",
    "GopherRepetition",
    "Language",
    "Length",
    "LowerCase",
    "NearDuplicates",
    "NoSpecialCharacters",
    "PlainPunctuation",
    "Result",
    "Step",
    "TextStep",
]
