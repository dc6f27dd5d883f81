"""From pieces of text to an HTTP response: one JSON object, or server-sent events as they come."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse

from llm.errors import UserError
from llm.serve.errors import ApiError, from_user_error
from llm.serve.schema import Asked
from llm.serve.shapes import Envelope, Shape
from llm.serve.writing import Completion, Gone, Piece

# What the OpenAPI document says of a route that streams where it is asked to; it answers in JSON without.
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


async def to_response(
    pieces: AsyncIterator[Piece],
    completion: Completion,
    body: Asked,
    envelope: Envelope,
    stack: AsyncExitStack,
) -> Response:
    """The response that `pieces` make, whole or as they come; `stack` is closed when it ends, however it does."""
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return streamed(_events(pieces, completion, envelope, usage), stack, ApiError.body)
    async with stack:
        async for piece in pieces:
            completion.add(piece)
    return JSONResponse(envelope.whole(completion))


def streamed(
    events: AsyncIterator[bytes], stack: AsyncExitStack, told: Callable[[ApiError], dict[str, Any]]
) -> StreamingResponse:
    """The response of `events` as they come; what goes wrong is an event too, as `told` has it."""

    async def all_events() -> AsyncIterator[bytes]:
        async with stack:
            try:
                async for one in events:
                    yield one
            except Gone:
                return
            except UserError as error:
                yield event(told(from_user_error(error)))

    return StreamingResponse(all_events(), media_type="text/event-stream")


async def _events(
    pieces: AsyncIterator[Piece], completion: Completion, envelope: Envelope, usage: bool
) -> AsyncIterator[bytes]:
    """Server-sent events, up to OpenAI's [DONE]."""
    shape: Shape = envelope.shape
    if begin := shape.begin(len(completion.texts)):
        yield event(envelope.chunk(begin))
    async for piece in pieces:
        completion.add(piece)
        if piece.text or piece.finish or (piece.tokens and piece.tokens[0].token.logprobs):
            yield event(envelope.chunk([shape.piece(piece)]))
    if usage:
        yield event(envelope.chunk([], completion.usage()))
    yield b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(value)}\n\n".encode()
