"""What models with labels say of texts, some at a time, so that others have their turn between."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from llm.generation import classify
from llm.serve.served import Served
from llm.serve.writing import Gone, refused_when_full

AT_A_TIME = 16


async def labelled(served: Served, texts: Sequence[str], http: Request) -> list[dict[str, float]]:
    """The probability of each label for each text, the likeliest first.

    Raises:
        Gone: the client has left.
        ApiError: too much waits already.
    """
    found: list[dict[str, float]] = []
    for start in range(0, len(texts), AT_A_TIME):
        if await http.is_disconnected():
            raise Gone
        found += await _some(served, texts[start : start + AT_A_TIME])
    return found


async def _some(served: Served, texts: Sequence[str]) -> list[dict[str, float]]:
    with refused_when_full(served):
        future = served.worker.call(lambda: classify(served.model, served.tokenizer, texts))
    return await asyncio.wrap_future(future)
