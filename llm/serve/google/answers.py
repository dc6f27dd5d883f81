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
# The types of things that have names of their own, and kinds of others that do: nationalities, languages, laws. Of dates
# and amounts, and of kinds that nobody knows here, tags don't say whether a mention is a name or a common noun.
NAMED_TYPES = {"PERSON", "LOCATION", "ORGANIZATION", "EVENT", "WORK_OF_ART", "CONSUMER_GOOD"}
NAMED_KINDS = {"MISC", "NORP", "LANGUAGE", "LAW"}
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
                "type": _entity_type(kind),
                "metadata": {"label": kind},
                **({"salience": len(each) / len(found)} if version == "v1" else {}),
                "mentions": [_mention(version, one) for one in each],
            }
            for (name, kind), each in by_thing.items()
        ]
    }


def _mention(version: Version, one: Mentioned) -> Object:
    probability = {} if version == "v1" else {"probability": one.probability}
    named = _entity_type(one.kind) in NAMED_TYPES or one.kind.upper() in NAMED_KINDS
    return {
        "text": {"content": one.text, "beginOffset": one.offset},
        "type": "PROPER" if named else "TYPE_UNKNOWN",
        **probability,
    }


def _entity_type(kind: str) -> str:
    return ENTITY_TYPES.get(kind.upper(), "OTHER")


def language(version: Version, document: Document) -> Object:
    """The language that the client named."""
    named = document.language or document.language_code or UNDETERMINED
    if version == "v1":
        return {"language": named}
    return {"languageCode": named, "languageSupported": True}
