"""OpenAI's routes: models, completions, chats and embeddings."""

import base64
from array import array
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest

from llm.serve import asking
from llm.serve.errors import ApiError
from llm.serve.metrics import Metrics
from llm.serve.registry import Figures, Models
from llm.serve.responding import to_response
from llm.serve.schema import Asked, ChatRequest, CompletionRequest, EmbeddingRequest, listed
from llm.serve.served import Served
from llm.serve.shapes import ChatShape, CompletionShape, Envelope
from llm.serve.writing import Answer, Writing, call_in_worker, whole_answers

router = APIRouter(prefix="/v1")


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of a route's errors."""
    return {status: {"description": "An error in OpenAI's shape."} for status in statuses}


@router.get("/models")
async def list_models(models: Models) -> dict[str, Any]:
    """The models that are served."""
    return {"object": "list", "data": [served.about() for served in models]}


@router.get("/models/{name}", responses=_errors(404))
async def show_model(name: str, models: Models) -> dict[str, Any]:
    """One of them."""
    return models.named(name).about()


@router.post("/completions", responses=_errors(400, 404, 429))
async def complete(http: HttpRequest, body: CompletionRequest, models: Models, metrics: Figures) -> Response:
    """Texts that a model writes for prompts; of what it reads whole, what it makes of it."""
    served, given = models.named(body.model), listed(body.prompt)
    envelope = Envelope.of(CompletionShape(served))
    prompts = await run_in_threadpool(lambda: [served.ids(one) for one in given])
    texts = [served.tokenizer.decode(one) if isinstance(one, list) else one for one in given]
    if not any(map(served.reads_whole, texts)):
        return await _generate(http, served, body, prompts, envelope, metrics)
    if body.schema_given is not None:
        message = (
            f"{served.name} reads this text whole; only what is written token by token can be made JSON."
        )
        raise ApiError(400, message, param="response_format")
    answer = Answer.empty(len(texts) * (body.n or 1), sum(map(len, prompts)))
    return await to_response(whole_answers(served, texts, body), answer, body, envelope, AsyncExitStack())


@router.post("/chat/completions", responses=_errors(400, 404, 429))
async def chat(http: HttpRequest, body: ChatRequest, models: Models, metrics: Figures) -> Response:
    """An assistant's next turn."""
    served = models.named(body.model)
    if not served.is_decoder_lm:
        message = f"{served.name} doesn't chat; use /v1/completions."
        raise ApiError(400, message, param="model")
    prompt = await run_in_threadpool(served.chat_ids, body)
    return await _generate(http, served, body, [prompt], Envelope.of(ChatShape(served)), metrics)


@router.post("/embeddings", responses=_errors(400, 404, 429))
async def embed(body: EmbeddingRequest, models: Models) -> dict[str, Any]:
    """The mean of the last hidden states of each text, of unit length."""
    served, given = models.named(body.model), listed(body.input)
    prompts = await run_in_threadpool(lambda: [served.ids(one) for one in given])
    vectors = await call_in_worker(served, lambda: [served.embedding(prompt) for prompt in prompts])
    read = sum(map(len, prompts))
    return {
        "object": "list",
        "model": served.name,
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": read, "total_tokens": read},
    }


async def _generate(
    http: HttpRequest,
    served: Served,
    body: Asked,
    prompts: list[list[int]],
    envelope: Envelope,
    metrics: Metrics,
) -> Response:
    """What a model writes for `prompts` token by token, as the request wants it told."""
    requests = await run_in_threadpool(asking.requests, served, body, prompts)
    writing = Writing(served, requests, asking.stops(served, body), http, metrics)
    read = sum(map(len, prompts))
    metrics.tokens.labels(served.name, "read").inc(read)
    stack = AsyncExitStack()
    # Entered here, for a full queue must be a 429 while that can still be said; left where the response ends.
    await stack.enter_async_context(writing)
    return await to_response(writing.pieces(), Answer.empty(len(requests), read), body, envelope, stack)


def _encoded(vector: list[float], encoding: str | None) -> str | list[float]:
    if encoding != "base64":
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()
