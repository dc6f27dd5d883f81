"""Text in, text out: prompts of any kind, and output that streams whole characters."""

import codecs
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from llm.errors import ConfigError
from llm.generation.engine import GREEDY, generate
from llm.generation.sampling import Sampling
from llm.model import Transformer
from llm.tokenizer import Tokenizer


def stream_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    sampling: Sampling = GREEDY,
    max_new_tokens: int,
    stop_ids: Sequence[int] | None = None,
    seed: int | None = None,
) -> Iterator[str]:
    """Yield what follows `prompt` as it comes; the pieces joined are the text that `complete` gives.

    A character of several tokens comes when it is whole, and bytes that are no UTF-8 as U+FFFD. The text ends
    before the first of `stop_ids`, by default the tokenizer's end of text. An empty prompt starts a document.
    """
    stop_ids = _stop_ids(tokenizer, stop_ids)
    prompt_bt = _prompt(tokenizer, prompt)
    steps = generate(
        model, prompt_bt, sampling=sampling, max_new_tokens=max_new_tokens, stop_ids=stop_ids, seed=seed
    )
    return decode_stream(tokenizer, (token_b.item() for token_b in steps), stop_ids)


def decode_stream(tokenizer: Tokenizer, ids: Iterable[int | float], stop_ids: Sequence[int]) -> Iterator[str]:
    """Yield the text of `ids` up to a stop, each piece as soon as its last character is whole."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for id_ in ids:
        if id_ in stop_ids:
            break
        if piece := decoder.decode(tokenizer.decode_bytes([int(id_)])):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest


def complete(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    num_samples: int = 1,
    sampling: Sampling = GREEDY,
    max_new_tokens: int,
    stop_ids: Sequence[int] | None = None,
    seed: int | None = None,
) -> list[str]:
    """`num_samples` continuations of `prompt`, without it, drawn as one batch; as `stream_text` otherwise."""
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples}: it must be at least 1.")
    stop_ids = _stop_ids(tokenizer, stop_ids)
    prompt_bt = _prompt(tokenizer, prompt).expand(num_samples, -1)
    steps = generate(
        model, prompt_bt, sampling=sampling, max_new_tokens=max_new_tokens, stop_ids=stop_ids, seed=seed
    )
    rows = zip(*[token_b.tolist() for token_b in steps], strict=True)
    samples = ["".join(decode_stream(tokenizer, row, stop_ids)) for row in rows]
    return samples or [""] * num_samples


def _stop_ids(tokenizer: Tokenizer, stop_ids: Sequence[int] | None) -> tuple[int, ...]:
    return (tokenizer.end_of_text,) if stop_ids is None else tuple(stop_ids)


def _prompt(tokenizer: Tokenizer, prompt: str) -> Tensor:
    """The ids (1, t) of a prompt, at least the end-of-text token that precedes every document."""
    return torch.tensor([tokenizer.encode(prompt) or [tokenizer.end_of_text]])
