"""The server's routes: OpenAI's, health, figures and the page."""

import asyncio
import base64
import json
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from llm import __version__
from llm.errors import UserError
from llm.serve.answers import ChatShape, CompletionShape, Envelope, Shape
from llm.serve.errors import ApiError, from_user_error, handle_errors
from llm.serve.guard import Guard, Guarding
from llm.serve.metrics import Metrics
from llm.serve.page import page_response
from llm.serve.schema import (
    Asked,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    listed,
)
from llm.serve.served import Served
from llm.serve.writing import Answer, Gone, Piece, Writing, refused_when_full, whole_answers

LEFT = 499  # nginx's status for a client that has left, which nobody receives


def create_app(models: Sequence[Served], guarding: Guarding) -> FastAPI:
    """The ASGI application that serves `models`; their workers run while it does."""
    by_name = {served.name: served for served in models}
    metrics = Metrics()

    @asynccontextmanager
    async def working(_: FastAPI) -> AsyncIterator[None]:
        for served in models:
            served.worker.start()
        yield
        for served in models:
            served.worker.stop()

    # The usual pages of documentation load scripts from elsewhere.
    app = FastAPI(title="llm", version=__version__, lifespan=working, docs_url=None, redoc_url=None)
    handle_errors(app)
    app.add_middleware(Guard, guarding=guarding, observe=metrics.observe)

    @app.exception_handler(Gone)
    async def nobody(request: Request, error: Gone) -> Response:
        return Response(status_code=LEFT)

    def named(name: str) -> Served:
        if name not in by_name:
            message = f"There is no model {name!a}. There is: {', '.join(by_name)}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return by_name[name]

    @app.get("/", include_in_schema=False)
    async def chat_page() -> Response:
        return page_response()

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def figures() -> Response:
        """Prometheus' figures."""
        workers = [(served.name, served.worker) for served in models]
        return Response(metrics.text(workers), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The models that are served."""
        return {"object": "list", "data": [served.about() for served in models]}

    @app.get("/v1/models/{name}", responses=_errors(404))
    async def show_model(name: str) -> dict[str, Any]:
        """One of them."""
        return named(name).about()

    @app.post("/v1/completions", responses=_errors(400, 404, 429))
    async def complete(http: Request, body: CompletionRequest) -> Response:
        """Texts that go on from prompts; of a model that reads a text whole, what it makes of it."""
        served, given = named(body.model), listed(body.prompt)
        envelope = Envelope.of(CompletionShape(served))
        prompts = await run_in_threadpool(lambda: [served.ids(one) for one in given])
        if served.writes_on:
            return await _written(http, served, body, prompts, envelope, metrics)
        texts = [served.tokenizer.decode(one) if isinstance(one, list) else one for one in given]
        answer = Answer.empty(len(texts) * (body.n or 1), sum(map(len, prompts)))
        return await _responded(whole_answers(served, texts, body), answer, body, envelope, AsyncExitStack())

    @app.post("/v1/chat/completions", responses=_errors(400, 404, 429))
    async def chat(http: Request, body: ChatRequest) -> Response:
        """An assistant's next turn."""
        served = named(body.model)
        if not served.writes_on:
            message = f"{served.name} reads texts whole and doesn't chat; use /v1/completions."
            raise ApiError(400, message, param="model")
        prompt = await run_in_threadpool(served.chat_ids, body)
        return await _written(http, served, body, [prompt], Envelope.of(ChatShape(served)), metrics)

    @app.post("/v1/embeddings", responses=_errors(400, 404, 429))
    async def embed(body: EmbeddingRequest) -> dict[str, Any]:
        """The mean of the last hidden states of each text, of unit length."""
        served, given = named(body.model), listed(body.input)
        prompts = await run_in_threadpool(lambda: [served.ids(one) for one in given])
        with refused_when_full(served):
            future = served.worker.call(lambda: [served.embedding(prompt) for prompt in prompts])
        vectors = await asyncio.wrap_future(future)
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

    return app


async def _written(
    http: Request, served: Served, body: Asked, prompts: list[list[int]], envelope: Envelope, metrics: Metrics
) -> Response:
    """What a decoder writes for `prompts`, as the request wants it told."""
    top = body.top_logprobs if isinstance(body, ChatRequest | CompletionRequest) else None
    requests = served.requests(body, prompts, top)
    template_stops = served.template.stops if isinstance(body, ChatRequest) else ()
    writing = Writing(served, requests, [*body.stops, *template_stops], http, metrics)
    read = sum(map(len, prompts))
    metrics.tokens.labels(served.name, "read").inc(read)
    stack = AsyncExitStack()
    await stack.enter_async_context(writing)
    return await _responded(writing.pieces(), Answer.empty(len(requests), read), body, envelope, stack)


async def _responded(
    pieces: AsyncIterator[Piece], answer: Answer, body: Asked, envelope: Envelope, stack: AsyncExitStack
) -> Response:
    """The response that `pieces` make, whole or as they come; `stack` is closed when it ends, however it does."""
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        events = _events(pieces, answer, envelope, usage, stack)
        return StreamingResponse(events, media_type="text/event-stream")
    async with stack:
        async for piece in pieces:
            answer.add(piece)
    return JSONResponse(envelope.whole(answer))


async def _events(
    pieces: AsyncIterator[Piece], answer: Answer, envelope: Envelope, usage: bool, stack: AsyncExitStack
) -> AsyncIterator[bytes]:
    """Server-sent events, up to OpenAI's [DONE]; what goes wrong is an event too."""
    shape: Shape = envelope.shape
    async with stack:
        if begin := shape.begin(len(answer.texts)):
            yield _event(envelope.chunk(begin))
        try:
            async for piece in pieces:
                answer.add(piece)
                if piece.text or piece.finish or (piece.tokens and piece.tokens[0].logprobs):
                    yield _event(envelope.chunk([shape.piece(piece)]))
        except Gone:
            return
        except UserError as error:
            yield _event(from_user_error(error).body())
            return
        if usage:
            yield _event(envelope.chunk([], answer.usage()))
        yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _encoded(vector: list[float], encoding: str | None) -> str | list[float]:
    if encoding != "base64":
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of a route's errors."""
    return {status: {"description": "An error in OpenAI's shape."} for status in statuses}
