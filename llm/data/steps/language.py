"""The language of a document, told offline by py3langid."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llm.bounds import Share
from llm.data.steps.base import Result, TextStep

LOOKED_AT = 2000


@dataclass(frozen=True)
class Language(TextStep):
    """Keeps documents in some languages, told by their beginning with py3langid (Lui and Baldwin, 2012).

    `languages` are ISO 639-1 codes (None: all are kept, and only counted). Below `min_probability` a language counts
    as not told, and the document is left out.
    """

    languages: Sequence[str] | None = None
    min_probability: Share = 0.0
    libraries = ("py3langid",)

    def __call__(self, text: str) -> Result:
        """The text, with its language for a remark."""
        language, probability = identify(text)
        if probability < self.min_probability:
            return Result(None, "not told")
        kept = self.languages is None or language in self.languages
        return Result(text if kept else None, language)


def identify(text: str) -> tuple[str, float]:
    """The likeliest language of a text's beginning, and its probability."""
    language, probability = _identifier().classify(text[:LOOKED_AT])
    return str(language), float(probability)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
