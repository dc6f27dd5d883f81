"""Hugging Face's inference route: a model's own task, at the address /models/NAME."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.requests import Request as HttpRequest

from llm.data.documents.bio import OUTSIDE
from llm.generation import LONGEST_ANSWER, Mention
from llm.generation.filling import fillings
from llm.serve import asking
from llm.serve.errors import ApiError, HuggingFaceRoute
from llm.serve.huggingface.answers import GenerationShape, failure, filled_in, settings
from llm.serve.huggingface.schema import Parameters, Question, TaskRequest
from llm.serve.labelling import estimated, extracted, labelled, mentioned
from llm.serve.metrics import Metrics
from llm.serve.registry import Figures, Models
from llm.serve.responding import STREAMED, streamed
from llm.serve.schema import Name, listed
from llm.serve.served import Served
from llm.serve.writing import Completion, Writing, in_pieces
from llm.tokenizer import MASK

DEFAULT_LABELS = DEFAULT_FILLINGS = 5
# Of texts that are read to their end, so that one request doesn't hold up the others for long.
MOST_CHARACTERS, MOST_FILLINGS = 100_000, 1000
router = APIRouter(route_class=HuggingFaceRoute)


@router.post(
    "/models/{name}",
    responses=STREAMED
    | {status: {"description": "An error in Hugging Face's shape."} for status in (400, 404, 429)},
)
async def perform(name: Name, body: TaskRequest, models: Models, metrics: Figures, http: HttpRequest) -> Any:
    """What a model's labels say of texts or questions, or what a model writes for texts (a summary, a translation).

    An encoder without labels fills in what a text hides, or embeds it.
    """
    served, asked = models.named(name), body.parameters
    if isinstance(body.inputs, Question) != (served.labelled == "answer"):
        wants = "a question and a context" if served.labelled == "answer" else "a text or a list of texts"
        raise ApiError(400, f"inputs: {name} takes {wants}.")
    if body.stream and not served.is_generative:
        raise ApiError(400, f"stream: {name} writes no text; leave it out.")
    if isinstance(body.inputs, Question):
        return await _answer(served, body.inputs, asked, http)
    texts = listed(body.inputs)
    if served.is_generative:
        return await _generate(served, texts, body, http, metrics)
    if served.labelled == "text":
        return _by_label(await labelled(served, texts, http), asked.top_k or DEFAULT_LABELS)
    if served.labelled == "number":
        numbers = await estimated(served, texts, http)
        return [[{"label": served.labels[0], "score": number}] for number in numbers]
    if served.labelled == "words":
        _check_size(texts)
        found = [
            _groups(text, one, asked)
            for text, one in zip(texts, await mentioned(served, texts, http), strict=True)
        ]
        return found[0] if isinstance(body.inputs, str) else found
    if body.wants_fillings or any(MASK in text for text in texts):
        filled = [await _fill(served, text, asked, http) for text in texts]
        return filled[0] if isinstance(body.inputs, str) else filled
    return await _embed(served, texts, http)


def _by_label(told: Sequence[dict[str, float]], most: int) -> list[list[dict[str, Any]]]:
    return [[{"label": label, "score": value} for label, value in list(one.items())[:most]] for one in told]


def _groups(text: str, found: Sequence[Mention], asked: Parameters) -> list[dict[str, Any]]:
    """What a text mentions, as the pipeline token-classification tells it."""
    ignored = [OUTSIDE] if asked.ignore_labels is None else asked.ignore_labels
    key = "entity" if asked.aggregation_strategy == "none" else "entity_group"
    return [
        {
            key: one.kind,
            "score": one.probability,
            "word": text[one.start : one.end],
            "start": one.start,
            "end": one.end,
        }
        for one in found
        if one.kind not in ignored
    ]


async def _answer(served: Served, asked: Question, how: Parameters, http: HttpRequest) -> Any:
    """The likeliest answer, as the pipeline question-answering tells it; one alone, also in a list."""
    _check_size([asked.question, asked.context])
    longest = LONGEST_ANSWER if how.max_answer_len is None else how.max_answer_len
    answer = await extracted(served, asked.question, asked.context, longest, http)
    found = {
        "answer": asked.context[answer.start : answer.end],
        "score": answer.probability,
        "start": answer.start,
        "end": answer.end,
    }
    if how.handle_impossible_answer and answer.probability <= 0.5:
        found = {"answer": "", "score": 1 - answer.probability, "start": 0, "end": 0}
    return found if how.top_k in (None, 1) else [found]


def _check_size(texts: Sequence[str]) -> None:
    if (size := sum(map(len, texts))) > MOST_CHARACTERS:
        raise ApiError(400, f"The texts have {size} characters; {MOST_CHARACTERS} are allowed.")


async def _fill(served: Served, text: str, asked: Parameters, http: HttpRequest) -> Any:
    """The likeliest tokens for a <mask>, as the pipeline fill-mask tells them: of several, a list for each."""
    if MASK not in text:
        raise ApiError(400, f"inputs: {served.name} has no labels; it fills in a text: put {MASK} into it.")
    most, among = asked.top_k or DEFAULT_FILLINGS, asked.targets or ()
    if (told := text.count(MASK) * most) > MOST_FILLINGS:
        raise ApiError(
            400, f"parameters.top_k: {told} tokens for all {MASK} are asked; {MOST_FILLINGS} are allowed."
        )
    find = partial(fillings, served.model, served.tokenizer, most=most, among=among)
    (found,) = await in_pieces(served, [text], http, lambda some: [find(one) for one in some])
    places = [[filled_in(one) for one in place] for place in found]
    return places[0] if len(places) == 1 else places


async def _embed(served: Served, texts: Sequence[str], http: HttpRequest) -> list[list[float]]:
    """What /v1/embeddings gives for the texts, as the pipeline feature-extraction tells it."""
    prompts = await run_in_threadpool(lambda: [served.whole_ids(text) for text in texts])
    return await in_pieces(served, prompts, http, lambda some: [served.embedding(one) for one in some])


async def _generate(
    served: Served, texts: list[str], body: TaskRequest, http: HttpRequest, metrics: Metrics
) -> Response:
    """What a model writes for each text, whole or as it comes.

    An encoder-decoder writes a target; a decoder that was trained to chat answers, and another goes on.
    """
    if body.stream and len(texts) > 1:
        raise ApiError(400, "inputs: a stream has one text; send the others in requests of their own.")
    prompts = await run_in_threadpool(lambda: [served.task_ids(text) for text in texts])
    how = settings(served, body.parameters, details=bool(body.stream or body.parameters.details))
    requests = await run_in_threadpool(asking.requests, served, how, prompts)
    shapes = [
        GenerationShape(served, body.parameters, text, len(prompt))
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    read, stack = sum(map(len, prompts)), AsyncExitStack()
    # Entered here, for a full queue must be a 429 while that can still be said; left where the response ends.
    writing = await stack.enter_async_context(
        Writing(served, requests, asking.stops(served, how), read, http, metrics)
    )
    if body.stream:
        return streamed(shapes[0].events(writing.pieces()), stack, failure)
    completion = Completion.empty(len(requests), read)
    async with stack:
        async for piece in writing.pieces():
            completion.add(piece)
    told = zip(shapes, completion.texts, completion.tokens, completion.finishes, strict=True)
    return JSONResponse([shape.whole(text, tokens, finish) for shape, text, tokens, finish in told])
