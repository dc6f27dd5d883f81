"""Guesses of what comes next, which a model then checks in one pass: from what was there before, or from a smaller model."""

from collections.abc import Callable, Sequence

import torch

from llm.errors import ConfigError
from llm.generation.mode import inference
from llm.model import KVCache, Transformer

SIZES = (3, 2)  # newest tokens that must have come before, more of them first

# From the tokens so far to those that may follow, up to a number.
Guess = Callable[[Sequence[int], int], list[int]]


def looked_up(tokens: Sequence[int], most: int) -> list[int]:
    """Up to `most` tokens that followed when the newest of `tokens` came the last time; none where they never did.

    Known as prompt lookup decoding, a case of speculative decoding (arXiv 2211.17192) without a second model.
    """
    for size in SIZES:
        newest = list(tokens[-size:])
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start] == newest[0] and list(tokens[start : start + size]) == newest:
                return list(tokens[start + size : start + size + most])
    return []


class Draft:
    """Guesses the likeliest tokens of a smaller model with the same tokenizer (arXiv 2211.17192), in a cache of its own."""

    def __init__(self, model: Transformer) -> None:
        """Raises ConfigError where `model` doesn't go on from a prompt."""
        if model.config.architecture != "decoder" or model.config.labels:
            raise ConfigError("draft: it must be a decoder, which goes on from the same tokens.")
        weight = next(model.parameters())
        self._model, self._device = model, weight.device
        self._cache = KVCache(model.config, 1, device=weight.device, dtype=weight.dtype)
        self._held: list[int] = []

    def __call__(self, tokens: Sequence[int], most: int) -> list[int]:
        """The `most` tokens that it takes to follow, fewer where its context ends."""
        most = min(most, self._cache.max_length - len(tokens))
        if most < 1:
            return []
        # What another text, or a wrong guess, left behind is overwritten.
        self._cache.length = common_start(self._held, tokens[:-1])
        unread, found = list(tokens[self._cache.length :]), list[int]()
        with inference(self._model):
            while len(found) < most:
                hidden = self._model.hidden_states(torch.tensor([unread], device=self._device), self._cache)
                unread = [int(self._model.head(hidden[:, -1:]).argmax())]
                found += unread
        self._held = [*tokens, *found[:-1]]
        return found


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
