"""Hugging Face's inference route: a model's own task, at the address /models/NAME."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from llm.generation import translate
from llm.serve.errors import ApiError
from llm.serve.labelling import labelled
from llm.serve.registry import Models
from llm.serve.schema import Body, Count, Name, Text, Texts, listed
from llm.serve.served import Served
from llm.serve.writing import refused_when_full

DEFAULT_LABELS, DEFAULT_TOKENS = 5, 64
router = APIRouter()


class GenerateParameters(Body):
    """How long a text may become."""

    max_new_tokens: Count | None = None


class Parameters(Body):
    """What the tasks may be told; each takes what concerns it."""

    top_k: Count | None = None
    function_to_apply: Literal["softmax"] | None = None
    generate_parameters: GenerateParameters | None = None


class TaskRequest(Body):
    """POST /models/NAME."""

    inputs: Text | Texts
    parameters: Annotated[Parameters, Field(default_factory=Parameters)]


@router.post(
    "/models/{name}",
    responses={status: {"description": "An error in Hugging Face's shape."} for status in (400, 404, 429)},
)
async def perform(name: Name, body: TaskRequest, models: Models, http: Request) -> list[Any]:
    """The labels of texts, or what an encoder-decoder writes for them (a summary, a translation)."""
    served, texts = models.named(name), listed(body.inputs)
    if served.labels:
        most = body.parameters.top_k or DEFAULT_LABELS
        told = await labelled(served, texts, http)
        return [
            [{"label": label, "score": value} for label, value in list(one.items())[:most]] for one in told
        ]
    if served.model.config.architecture == "encoder_decoder":
        written = await _written(served, texts, body.parameters)
        return [{"summary_text": text, "translation_text": text} for text in written]
    raise ApiError(400, f"{name} has no labels and writes no target for a source; use /v1/completions.")


async def _written(served: Served, texts: list[str], parameters: Parameters) -> list[str]:
    asked = parameters.generate_parameters or GenerateParameters()
    length = min(asked.max_new_tokens or DEFAULT_TOKENS, served.model.config.context_length)
    with refused_when_full(served):
        future = served.worker.call(
            lambda: translate(served.model, served.tokenizer, texts, max_new_tokens=length)
        )
    return await asyncio.wrap_future(future)
