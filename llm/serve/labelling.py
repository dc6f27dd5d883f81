"""What models with labels say of texts, a part at a time, so that others have their turn between."""

from collections.abc import Sequence
from functools import partial
from itertools import islice

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from torch import Tensor

from llm.data.collators.words import Window
from llm.generation import (
    Extracted,
    Mention,
    Passage,
    TaggedWord,
    TextWords,
    classify,
    estimate,
    mentions,
    word_scores,
)
from llm.serve.served import Served
from llm.serve.writing import in_pieces

AT_A_TIME = 16


async def labelled(served: Served, texts: Sequence[str], http: HttpRequest) -> list[dict[str, float]]:
    """The probability of each label for each text, the likeliest first.

    Raises:
        Gone: the client has left.
        ApiError: too much waits already.
    """
    return await in_pieces(served, texts, http, partial(classify, served.model, served.tokenizer), AT_A_TIME)


async def estimated(served: Served, texts: Sequence[str], http: HttpRequest) -> list[float]:
    """The number that is predicted for each text; errors as those of `labelled`."""
    return await in_pieces(served, texts, http, partial(estimate, served.model, served.tokenizer), AT_A_TIME)


async def mentioned(served: Served, texts: Sequence[str], http: HttpRequest) -> list[list[Mention]]:
    """What each text mentions, by the tags of its words; errors as those of `labelled`."""
    return [mentions(words) for words in await tagged(served, texts, http)]


async def tagged(served: Served, texts: Sequence[str], http: HttpRequest) -> list[list[TaggedWord]]:
    """The words of each text with their tags; errors as those of `labelled`."""
    length, labels = served.model.config.context_length, served.labels
    words = await run_in_threadpool(lambda: [TextWords.of(served.tokenizer, text, length) for text in texts])
    windows = [window for one in words for window in one.windows]
    scores = iter(await _scored(served, windows, http, whole=False))
    return [one.tagged(list(islice(scores, len(one.windows))), labels) for one in words]


async def extracted(served: Served, question: str, text: str, longest: int, http: HttpRequest) -> Extracted:
    """The likeliest answer to a question on a text, of at most `longest` units.

    Raises:
        ConfigError: there is no question or no text.
        Gone: the client has left.
        ApiError: too much waits already.
    """
    length = served.model.config.context_length
    passage = await run_in_threadpool(Passage.of, served.tokenizer, question, text, length)
    return passage.answer(await _scored(served, passage.windows, http, whole=True), longest)


async def _scored(
    served: Served, windows: Sequence[Window], http: HttpRequest, *, whole: bool
) -> list[Tensor]:
    find = partial(word_scores, served.model, served.tokenizer, whole=whole)
    return await in_pieces(served, windows, http, find, AT_A_TIME)
