"""OpenAI's routes: models, completions, chats and embeddings."""

import base64
from array import array
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest

from llm.generation import Sampling
from llm.serve import asking
from llm.serve.asking import Settings
from llm.serve.errors import ApiError, OpenAIRoute
from llm.serve.metrics import Metrics
from llm.serve.registry import Figures, Models
from llm.serve.responding import STREAMED, to_response
from llm.serve.schema import Asked, ChatRequest, CompletionRequest, EmbeddingRequest, listed
from llm.serve.served import Served
from llm.serve.shapes import ChatShape, CompletionShape, Envelope
from llm.serve.whole import whole_responses
from llm.serve.writing import Completion, Writing, in_pieces
from llm.tokenizer import MASK

DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it
router = APIRouter(prefix="/v1", route_class=OpenAIRoute)


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


@router.post("/completions", responses=STREAMED | _errors(400, 404, 429))
async def complete(http: HttpRequest, body: CompletionRequest, models: Models, metrics: Figures) -> Response:
    """Texts that a model writes for prompts, or what it says of them where it responds whole."""
    served, given = models.named(body.model), listed(body.prompt)
    envelope = Envelope.of(CompletionShape(served))
    prompts = await run_in_threadpool(lambda: [served.ids(one) for one in given])
    texts = [served.tokenizer.decode(one) if isinstance(one, list) else one for one in given]
    if not _responds_whole(served, body, texts):
        return await _generate(http, served, body, prompts, envelope, metrics)
    settings = _settings(served, body)
    completion = Completion.empty(len(texts) * settings.n, sum(map(len, prompts)))
    pieces = await whole_responses(served, texts, settings, http, metrics)
    return await to_response(pieces, completion, body, envelope, AsyncExitStack())


@router.post("/chat/completions", responses=STREAMED | _errors(400, 404, 429))
async def chat(http: HttpRequest, body: ChatRequest, models: Models, metrics: Figures) -> Response:
    """An assistant's next turn."""
    served = models.named(body.model)
    if not served.is_decoder_lm:
        message = f"{served.name} doesn't chat; use /v1/completions."
        raise ApiError(400, message, param="model")
    prompt = await run_in_threadpool(served.chat_ids, body)
    return await _generate(http, served, body, [prompt], Envelope.of(ChatShape(served)), metrics)


@router.post("/embeddings", responses=_errors(400, 404, 429))
async def embed(
    http: HttpRequest, body: EmbeddingRequest, models: Models, metrics: Figures
) -> dict[str, Any]:
    """The mean of the last hidden states of each text, of unit length."""
    served, given = models.named(body.model), listed(body.input)
    prompts = await run_in_threadpool(lambda: [served.whole_ids(one) for one in given])
    vectors = await in_pieces(served, prompts, http, lambda some: [served.embedding(one) for one in some])
    read = sum(map(len, prompts))
    metrics.tokens.labels(served.name, "read").inc(read)
    return {
        "object": "list",
        "model": served.name,
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": read, "total_tokens": read},
    }


def _responds_whole(served: Served, body: CompletionRequest, texts: Sequence[str]) -> bool:
    """Whether the model responds to the texts whole, rather than write token by token.

    Raises:
        ApiError: it does so to some of them alone, or its responses are to be JSON.
    """
    whole = [served.responds_whole(text) for text in texts]
    if any(whole) and not all(whole):
        message = (
            f"prompt: {served.name} fills in {MASK}, and writes the target of a text without one, but not both at once. "
            f"Send the texts with {MASK} in a request of their own."
        )
        raise ApiError(400, message, param="prompt")
    if any(whole) and body.schema_given is not None:
        message = (
            f"response_format: {served.name} tells labels or fills in what a text hides, which can't be made JSON. Leave "
            "response_format out."
        )
        raise ApiError(400, message, param="response_format")
    return any(whole)


def _settings(served: Served, body: Asked) -> Settings:
    """What a request sets; OpenAI's defaults are temperature 1, and 16 tokens of what goes on from a prompt."""
    return Settings(
        body.prompt_field,
        body.is_chat,
        _sampling(body),
        max_tokens=body.most_tokens,
        default_tokens=DEFAULT_TOKENS if served.continues_prompt and not body.is_chat else None,
        n=body.n or 1,
        seed=body.seed,
        stops=body.stops,
        top_logprobs=body.top_logprobs,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        biases={int(token): bias for token, bias in (body.logit_bias or {}).items()},
        schema=body.schema_given,
    )


def _sampling(body: Asked) -> Sampling:
    """How tokens are drawn; of a top_p of 0 the likeliest is left."""
    temperature = 1.0 if body.temperature is None else body.temperature
    return Sampling(
        temperature=0.0 if body.top_p == 0 else temperature,
        top_k=body.top_k,
        top_p=body.top_p or None,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
    )


async def _generate(
    http: HttpRequest,
    served: Served,
    body: Asked,
    prompts: list[list[int]],
    envelope: Envelope,
    metrics: Metrics,
) -> Response:
    """What a model writes for `prompts` token by token, as the request wants it told."""
    settings = _settings(served, body)
    requests = await run_in_threadpool(asking.requests, served, settings, prompts)
    read = sum(map(len, prompts))
    writing = Writing(served, requests, asking.stops(served, settings), read, http, metrics)
    stack = AsyncExitStack()
    # Entered here, for a full queue must be a 429 while that can still be said; left where the response ends.
    await stack.enter_async_context(writing)
    return await to_response(writing.pieces(), Completion.empty(len(requests), read), body, envelope, stack)


def _encoded(vector: list[float], encoding: str | None) -> str | list[float]:
    if encoding != "base64":
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()
