"""The JSON objects that Google Cloud Natural Language answers with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llm.serve.google.schema import Document, Version
from llm.serve.google.text import Sentence

Object = dict[str, Any]
# Google's types by the kinds that data sets have; what else there is is told as label, beside OTHER.
ENTITY_TYPES = {
    "PER": "PERSON", "PERSON": "PERSON",
    "LOC": "LOCATION", "LOCATION": "LOCATION", "GPE": "LOCATION", "FAC": "LOCATION",
    "ORG": "ORGANIZATION", "ORGANIZATION": "ORGANIZATION", "CORPORATION": "ORGANIZATION", "GROUP": "ORGANIZATION",
    "EVENT": "EVENT", "WORK_OF_ART": "WORK_OF_ART", "CREATIVE-WORK": "WORK_OF_ART",
    "PRODUCT": "CONSUMER_GOOD", "CONSUMER_GOOD": "CONSUMER_GOOD",
    "PHONE_NUMBER": "PHONE_NUMBER", "ADDRESS": "ADDRESS", "DATE": "DATE", "MONEY": "PRICE", "PRICE": "PRICE",
    "NUMBER": "NUMBER", "CARDINAL": "NUMBER", "ORDINAL": "NUMBER", "QUANTITY": "NUMBER", "PERCENT": "NUMBER",
}  # fmt: skip
UNDETERMINED = "und"  # BCP 47's word for a language that nobody told


class Mentioned(NamedTuple):
    """Where a text mentions something of a kind; the offset is in the client's units."""

    text: str
    kind: str
    offset: int
    probability: float


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


def entities(version: Version, found: Sequence[Mentioned]) -> Object:
    """What a text mentions, each thing once with all its mentions, in the order of their first.

    A thing's salience, of version 1, is its share of all mentions.
    """
    by_thing: dict[tuple[str, str], list[Mentioned]] = {}
    for one in found:
        by_thing.setdefault((one.text, one.kind), []).append(one)
    return {
        "entities": [
            {
                "name": name,
                "type": ENTITY_TYPES.get(kind.upper(), "OTHER"),
                "metadata": {"label": kind},
                **({"salience": len(each) / len(found)} if version == "v1" else {}),
                "mentions": [_mention(version, one) for one in each],
            }
            for (name, kind), each in by_thing.items()
        ]
    }


def _mention(version: Version, one: Mentioned) -> Object:
    probability = {} if version == "v1" else {"probability": one.probability}
    return {"text": {"content": one.text, "beginOffset": one.offset}, **probability}


def language(version: Version, document: Document) -> Object:
    """The language that the client named."""
    named = document.language or document.language_code or UNDETERMINED
    if version == "v1":
        return {"language": named}
    return {"languageCode": named, "languageSupported": True}
