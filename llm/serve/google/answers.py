"""The JSON objects that Google Cloud Natural Language answers with."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm.serve.google.schema import Document, Version
from llm.serve.google.text import Sentence

Object = dict[str, Any]
UNDETERMINED = "und"  # BCP 47's word for a language that nobody told


def sentiment(
    whole: float, sentences: Sequence[Sentence], offsets: Sequence[int], each: Sequence[float]
) -> Object:
    """How good a text is and each of its sentences; the text's magnitude adds up all that is good and bad in them."""
    return {
        "documentSentiment": {"score": whole, "magnitude": sum(map(abs, each))},
        "sentences": [
            {
                "text": {"content": sentence.text, "beginOffset": offset},
                "sentiment": {"score": score, "magnitude": abs(score)},
            }
            for sentence, offset, score in zip(sentences, offsets, each, strict=True)
        ],
    }


def categories(probabilities: Mapping[str, float]) -> Object:
    """What a text is about, the likeliest first."""
    return {"categories": [{"name": name, "confidence": value} for name, value in probabilities.items()]}


def language(version: Version, document: Document) -> Object:
    """The language that the client named."""
    named = document.language or document.language_code or UNDETERMINED
    if version == "v1":
        return {"language": named}
    return {"languageCode": named, "languageSupported": True}
