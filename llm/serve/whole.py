"""What a model that responds to a text as a whole says of it, as text: labels, filled masks, restored spans."""

from collections.abc import AsyncIterator, Sequence

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest

from llm.generation import LONGEST_ANSWER, Request, TextWriter
from llm.generation.context import room_after
from llm.generation.extracting import answer_text, question_and_passage
from llm.generation.filling import HiddenSpans
from llm.generation.tagging import tags_text
from llm.serve.asking import Settings
from llm.serve.labelling import extracted, tagged
from llm.serve.metrics import Metrics
from llm.serve.served import Served
from llm.serve.writing import Completion, Piece, Writing, in_pieces
from llm.tokenizer import start_token


async def whole_responses(
    served: Served, texts: Sequence[str], settings: Settings, http: HttpRequest, metrics: Metrics
) -> AsyncIterator[Piece]:
    """The pieces of all responses; the `n` of each text are the same.

    All are there before the first is given: while no response has begun, each of them can still be refused.

    Raises:
        ConfigError: there is nothing to fill in, or no question, or a text is too long.
        Gone: the client has left.
        ApiError: too much waits already.
    """
    pieces = []
    for index, whole in enumerate(await _responses(served, texts, settings, http, metrics)):
        said = TextWriter(served.tokenizer, settings.stops).say(whole, final=True)
        numbers = range(index * settings.n, (index + 1) * settings.n)
        pieces += [Piece(number, said, [], "stop") for number in numbers]
    return _these(pieces)


async def _these(pieces: Sequence[Piece]) -> AsyncIterator[Piece]:
    for piece in pieces:
        yield piece


async def _responses(
    served: Served, texts: Sequence[str], settings: Settings, http: HttpRequest, metrics: Metrics
) -> list[str]:
    """What `Served.respond` says of each text; long ones a part at a time, so that others have their turn between."""
    if served.is_generative:
        return await _restored(served, texts, settings, http, metrics)
    if served.labelled == "words":
        words = await tagged(served, texts, http)
        return [tags_text(text, some) for text, some in zip(texts, words, strict=True)]
    if served.labelled == "answer":
        return [await _answer(served, text, http) for text in texts]
    return await in_pieces(
        served, texts, http, lambda some: [served.respond(one, settings.max_tokens) for one in some]
    )


async def _answer(served: Served, text: str, http: HttpRequest) -> str:
    question, passage = question_and_passage(text)
    return answer_text(passage, await extracted(served, question, passage, LONGEST_ANSWER, http))


async def _restored(
    served: Served, texts: Sequence[str], settings: Settings, http: HttpRequest, metrics: Metrics
) -> list[str]:
    """The texts with the spans that are hidden from an encoder-decoder, which it writes in its batch."""
    hidden = await run_in_threadpool(lambda: [HiddenSpans.of(served.tokenizer, text) for text in texts])
    for one in hidden:
        served.check_fits(len(one.source), 0, settings.prompt_field)
    prompt = [start_token(served.tokenizer)]
    room = room_after(prompt, served.model.config.context_length)
    requests = [
        Request(
            prompt,
            min(settings.max_tokens or room, room),
            stop_ids=[served.tokenizer.end_of_text],
            source=one.source,
            adapter=served.adapter,
        )
        for one in hidden
    ]
    read = sum(len(one.source) for one in hidden)
    completion = Completion.empty(len(requests), read)
    async with Writing(served, requests, (), read, http, metrics) as writing:
        async for piece in writing.pieces():
            completion.add(piece)
    ids = [[placed.token.id for placed in tokens] for tokens in completion.tokens]
    return [one.restored(served.tokenizer, some) for one, some in zip(hidden, ids, strict=True)]
