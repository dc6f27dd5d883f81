"""Google Cloud Natural Language's routes, for models with labels; they stand under /models/NAME too, for one of several."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request as HttpRequest

from llm.data.documents.bio import is_bio
from llm.serve.errors import ApiError, GoogleRoute
from llm.serve.google import answers
from llm.serve.google.schema import AnalyzeRequest, AnnotateRequest, ClassifyRequest, EncodingType, Version
from llm.serve.google.text import PlainText, Sentence
from llm.serve.labelling import labelled, mentioned
from llm.serve.registry import Models
from llm.serve.schema import Name
from llm.serve.sentiment import polarities, score
from llm.serve.served import Served

MOST_SENTENCES = 1000
# What is asked of a kind of model that this server doesn't have, as a method or as a feature of annotateText.
UNSERVED = {
    "analyzeEntitySentiment": "extract_entity_sentiment",
    "analyzeSyntax": "extract_syntax",
    "moderateText": "moderate_text",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": "An error in Google's shape."} for status in (400, 404, 429)
}
router = APIRouter(prefix="/{version}", route_class=GoogleRoute, responses=ERRORS)


async def named_in_path(name: Name) -> None:
    """Says that the path names a model, wherever this router stands under /models/{name}."""


async def _meant(request: HttpRequest, models: Models) -> list[Served]:
    """The models that a request may be for."""
    name = request.path_params.get("name")
    return list(models) if name is None else [models.named(name)]


Meant = Annotated[list[Served], Depends(_meant)]


@router.post("/documents:analyzeSentiment")
async def analyze_sentiment(
    version: Version, body: AnalyzeRequest, meant: Meant, http: HttpRequest
) -> answers.Object:
    """How good a text and its sentences are."""
    found = await _sentiment(meant, PlainText.of(body.document), body.encoding_type, http)
    return {**found, **answers.language(version, body.document)}


@router.post("/documents:analyzeEntities")
async def analyze_entities(
    version: Version, body: AnalyzeRequest, meant: Meant, http: HttpRequest
) -> answers.Object:
    """What a text mentions: people, places, whatever the model's tags name."""
    found = await _entities(version, meant, PlainText.of(body.document), body.encoding_type, http)
    return {**found, **answers.language(version, body.document)}


@router.post("/documents:classifyText")
async def classify_text(
    version: Version, body: ClassifyRequest, meant: Meant, http: HttpRequest
) -> answers.Object:
    """What a text is about."""
    found = await _categories(meant, PlainText.of(body.document), http)
    return {**found, **answers.language(version, body.document)}


@router.post("/documents:annotateText")
async def annotate_text(
    version: Version, body: AnnotateRequest, meant: Meant, http: HttpRequest
) -> answers.Object:
    """Several of these in one answer, each from the model that can tell it."""
    for method, feature in UNSERVED.items():
        if getattr(body.features, feature):
            raise _unserved(method)
    text = PlainText.of(body.document)
    found: answers.Object = {}
    if body.features.extract_document_sentiment:
        found |= await _sentiment(meant, text, body.encoding_type, http)
    if body.features.extract_entities:
        found |= await _entities(version, meant, text, body.encoding_type, http)
    if body.features.classify_text:
        found |= await _categories(meant, text, http)
    return {**found, **answers.language(version, body.document)}


@router.post("/documents:{method}")
async def others(version: Version, method: str) -> answers.Object:
    """Methods that need models of other kinds."""
    if method in UNSERVED:
        raise _unserved(method)
    raise ApiError(404, f"There is no method {method!a} of documents.")


async def _sentiment(
    meant: Sequence[Served], text: PlainText, encoding: EncodingType, http: HttpRequest
) -> answers.Object:
    able = [served for served in _of_texts(meant) if polarities(served.labels)]
    served = _only(able, "labels that tell a sentiment, such as negative and positive")
    sentences = _sentences(text)
    if not sentences:
        return answers.sentiment(0.0, [], [], [])
    told = await labelled(served, [text.text.strip(), *(sentence.text for sentence in sentences)], http)
    whole, *each = [score(probabilities, polarities(served.labels) or {}) for probabilities in told]
    offsets = text.offsets([sentence.start for sentence in sentences], encoding)
    return answers.sentiment(whole, sentences, offsets, each)


async def _entities(
    version: Version, meant: Sequence[Served], text: PlainText, encoding: EncodingType, http: HttpRequest
) -> answers.Object:
    able = [served for served in meant if served.labelled == "words" and is_bio(served.labels)]
    served = _only(able, "tags that name things, such as B-PER and I-PER")
    sentences = _sentences(text)
    told = await mentioned(served, [sentence.text for sentence in sentences], http)
    found = [
        one._replace(start=sentence.start + one.start, end=sentence.start + one.end)
        for sentence, each in zip(sentences, told, strict=True)
        for one in each
    ]
    offsets = text.offsets([one.start for one in found], encoding)
    return answers.entities(
        version,
        [
            answers.Mentioned(text.text[one.start : one.end], one.kind, offset, one.probability)
            for one, offset in zip(found, offsets, strict=True)
        ],
    )


async def _categories(meant: Sequence[Served], text: PlainText, http: HttpRequest) -> answers.Object:
    labelling = _of_texts(meant)
    # Next to a model that tells sentiments, one of other labels is meant.
    others = [served for served in labelling if not polarities(served.labels)]
    served = _only(others or labelling, "labels")
    if not text.text.strip():
        raise ApiError(400, "The document has no text to classify.")
    (told,) = await labelled(served, [text.text.strip()], http)
    return answers.categories(told)


def _of_texts(meant: Sequence[Served]) -> list[Served]:
    """The models whose labels are of texts."""
    return [served for served in meant if served.labelled == "text"]


def _sentences(text: PlainText) -> list[Sentence]:
    sentences = text.sentences()
    if len(sentences) > MOST_SENTENCES:
        raise ApiError(400, f"The document has {len(sentences)} sentences; {MOST_SENTENCES} are allowed.")
    return sentences


def _only(able: Sequence[Served], what: str) -> Served:
    """The one model that can."""
    if not able:
        raise ApiError(400, f"This needs a model with {what}, and no such model is meant here.")
    if len(able) > 1:
        names = ", ".join(served.name for served in able)
        raise ApiError(
            400,
            f"{names} have {what}. Ask one of them: its API's endpoint is this server's, with /models/NAME.",
        )
    return able[0]


def _unserved(method: str) -> ApiError:
    return ApiError(
        400,
        f"{method} needs a kind of model that this server doesn't serve; labels of texts and words it has.",
    )
