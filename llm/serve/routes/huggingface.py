"""Hugging Face's inference route: a model's own task, at the address /models/NAME."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field
from starlette.requests import Request as HttpRequest

from llm.data.documents.bio import OUTSIDE
from llm.generation import GREEDY, LONGEST_ANSWER, Mention
from llm.serve import asking
from llm.serve.asking import Settings
from llm.serve.errors import ApiError, HuggingFaceRoute
from llm.serve.labelling import estimated, extracted, labelled, mentioned
from llm.serve.metrics import Metrics
from llm.serve.registry import Figures, Models
from llm.serve.schema import Body, Count, Name, Text, Texts, listed
from llm.serve.served import Served
from llm.serve.writing import Completion, Writing

DEFAULT_LABELS, DEFAULT_TOKENS = 5, 64
# Of texts that are read to their end, so that one request doesn't hold up the others for long.
MOST_CHARACTERS = 100_000
router = APIRouter(route_class=HuggingFaceRoute)


class GenerateParameters(Body):
    """How long a text may become."""

    max_new_tokens: Count | None = None


class Parameters(Body):
    """What the tasks may be told; each takes what concerns it."""

    top_k: Count | None = None
    function_to_apply: Literal["softmax"] | None = None
    generate_parameters: GenerateParameters | None = None
    # Words are tagged whole here, so that there is nothing to choose between but none.
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    ignore_labels: Annotated[list[Text], Field(max_length=1000)] | None = None
    handle_impossible_answer: bool = False
    max_answer_len: Annotated[int, Field(ge=1, le=1000)] | None = None


class Question(Body):
    """What is asked, and the text that holds the answer."""

    question: Text
    context: Text


class TaskRequest(Body):
    """POST /models/NAME."""

    inputs: Text | Texts | Question
    parameters: Annotated[Parameters, Field(default_factory=Parameters)]


@router.post(
    "/models/{name}",
    responses={status: {"description": "An error in Hugging Face's shape."} for status in (400, 404, 429)},
)
async def perform(name: Name, body: TaskRequest, models: Models, metrics: Figures, http: HttpRequest) -> Any:
    """What a model's labels say of texts or questions, or what a model writes for texts (a summary, a translation)."""
    served, asked = models.named(name), body.parameters
    if isinstance(body.inputs, Question) != (served.labelled == "answer"):
        wants = "a question and a context" if served.labelled == "answer" else "a text or a list of texts"
        raise ApiError(400, f"inputs: {name} takes {wants}.")
    if isinstance(body.inputs, Question):
        return await _answer(served, body.inputs, asked, http)
    texts = listed(body.inputs)
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
    if served.is_generative:
        return await _generate(served, texts, asked, http, metrics)
    raise ApiError(400, f"{name} has no labels and writes no texts; use /v1/completions.")


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


async def _generate(
    served: Served, texts: list[str], asked: Parameters, http: HttpRequest, metrics: Metrics
) -> list[dict[str, str]]:
    """What a model writes for each text, the likeliest token each time.

    An encoder-decoder writes a target; a decoder that was trained to chat answers, and another goes on. A text is as long
    as the context allows, if that is less than asked.
    """
    how = asked.generate_parameters or GenerateParameters()
    prompts = await run_in_threadpool(lambda: [served.task_ids(text) for text in texts])
    settings = Settings("inputs", served.chats, GREEDY, default_tokens=how.max_new_tokens or DEFAULT_TOKENS)
    requests = await run_in_threadpool(asking.requests, served, settings, prompts)
    completion = Completion.empty(len(requests), sum(map(len, prompts)))
    async with Writing(served, requests, (), http, metrics) as writing:
        async for piece in writing.pieces():
            completion.add(piece)
    # The clients of the tasks look each for its own name.
    return [
        dict.fromkeys(("generated_text", "summary_text", "translation_text"), text)
        for text in completion.texts
    ]
