"""What models with labels say of texts, some at a time, so that others have their turn between."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from starlette.requests import Request as HttpRequest

from llm.generation import Mention, classify, mentions, tagged_words
from llm.model import Transformer
from llm.serve.served import Served
from llm.serve.writing import Gone, call_in_worker
from llm.tokenizer import Tokenizer

Found = TypeVar("Found")
AT_A_TIME = 16


async def labelled(served: Served, texts: Sequence[str], http: HttpRequest) -> list[dict[str, float]]:
    """The probability of each label for each text, the likeliest first.

    Raises:
        Gone: the client has left.
        ApiError: too much waits already.
    """
    return await _each(served, texts, http, classify)


async def mentioned(served: Served, texts: Sequence[str], http: HttpRequest) -> list[list[Mention]]:
    """What each text mentions, by the tags of its words; errors as those of `labelled`."""
    tagged = await _each(served, texts, http, tagged_words)
    return [mentions(words) for words in tagged]


async def _each(
    served: Served,
    texts: Sequence[str],
    http: HttpRequest,
    tell: Callable[[Transformer, Tokenizer, Sequence[str]], list[Found]],
) -> list[Found]:
    found: list[Found] = []
    for start in range(0, len(texts), AT_A_TIME):
        if await http.is_disconnected():
            raise Gone
        some = texts[start : start + AT_A_TIME]
        found += await call_in_worker(served, partial(tell, served.model, served.tokenizer, some))
    return found
