"""From pieces of text to an HTTP response: one JSON object, or server-sent events as they come."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse

from llm.errors import UserError
from llm.serve.errors import from_user_error
from llm.serve.schema import Asked
from llm.serve.shapes import Envelope, Shape
from llm.serve.writing import Completion, Gone, Piece


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
        events = _events(pieces, completion, envelope, usage, stack)
        return StreamingResponse(events, media_type="text/event-stream")
    async with stack:
        async for piece in pieces:
            completion.add(piece)
    return JSONResponse(envelope.whole(completion))


async def _events(
    pieces: AsyncIterator[Piece],
    completion: Completion,
    envelope: Envelope,
    usage: bool,
    stack: AsyncExitStack,
) -> AsyncIterator[bytes]:
    """Server-sent events, up to OpenAI's [DONE]; what goes wrong is an event too."""
    shape: Shape = envelope.shape
    async with stack:
        if begin := shape.begin(len(completion.texts)):
            yield _event(envelope.chunk(begin))
        try:
            async for piece in pieces:
                completion.add(piece)
                if piece.text or piece.finish or (piece.tokens and piece.tokens[0].logprobs):
                    yield _event(envelope.chunk([shape.piece(piece)]))
        except Gone:
            return
        except UserError as error:
            yield _event(from_user_error(error).body())
            return
        if usage:
            yield _event(envelope.chunk([], completion.usage()))
        yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
