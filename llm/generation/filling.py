"""What a text hides: an encoder fills in tokens, an encoder-decoder spans of any length."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

import torch

from llm.errors import ConfigError
from llm.generation.context import check_fits
from llm.generation.engine import generate
from llm.generation.mode import inference
from llm.model import Transformer
from llm.tokenizer import MASK, Tokenizer, mask_token, sentinels, start_token


def fill(model: Transformer, tokenizer: Tokenizer, text: str) -> str:
    """`text` with the likeliest token in place of each <mask>, all predicted at once by an encoder.

    Raises:
        ConfigError: the text is longer than the model's context, or the tokenizer has no mask token.
    """
    mask = mask_token(tokenizer)
    tokens_bt = _tokens(model, _hidden_ids(tokenizer, text.split(MASK), [mask] * text.count(MASK)))
    with inference(model):
        likeliest_bt = model(tokens_bt).argmax(-1)
    return tokenizer.decode(torch.where(tokens_bt == mask, likeliest_bt, tokens_bt)[0].tolist())


class Filling(NamedTuple):
    """A token that may stand in place of a <mask>: how likely it is, its text, and the whole text with it."""

    id: int
    probability: float
    text: str
    whole: str


def fillings(
    model: Transformer, tokenizer: Tokenizer, text: str, most: int, among: Sequence[str] = ()
) -> list[list[Filling]]:
    """The `most` likeliest tokens in place of each <mask> of a text, the likeliest first, all predicted by an encoder.

    among: the texts whose first tokens alone are told; with none, all tokens are.

    Raises:
        ConfigError: the text is longer than the model's context, or the tokenizer has no mask token.
    """
    mask = mask_token(tokenizer)
    tokens_1t = _tokens(model, _hidden_ids(tokenizer, text.split(MASK), [mask] * text.count(MASK)))
    with inference(model):
        share_1tv = model(tokens_1t).float().softmax(-1)[..., : tokenizer.vocab_size]
    ids = [tokenizer.encode(one)[0] for one in among] or list(range(share_1tv.shape[-1]))
    found = []
    for place in (tokens_1t[0] == mask).nonzero().flatten().tolist():
        top = share_1tv[0, place, ids].topk(min(most, len(ids)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        found.append(
            [_filling(tokenizer, tokens_1t[0].tolist(), place, ids[at], share) for at, share in pairs]
        )
    return found


def _filling(tokenizer: Tokenizer, ids: list[int], place: int, id_: int, probability: float) -> Filling:
    whole = show_hidden(tokenizer, [*ids[:place], id_, *ids[place + 1 :]], [mask_token(tokenizer)])
    return Filling(id_, probability, tokenizer.decode([id_]), whole)


class HiddenSpans(NamedTuple):
    """A text whose spans are hidden from an encoder-decoder: its parts, the sentinels between them, and the ids that are read."""

    parts: list[str]
    marks: list[int]
    source: list[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str) -> "HiddenSpans":
        """Of a text with a <mask> for each span; a ConfigError where it hides more spans than there are sentinels."""
        parts = text.split(MASK)
        marks = sentinels(tokenizer)[: len(parts) - 1]
        if len(marks) < len(parts) - 1:
            raise ConfigError(
                f"The text hides {len(parts) - 1} spans, and the tokenizer has {len(marks)} sentinels."
            )
        return cls(parts, marks, _hidden_ids(tokenizer, parts, marks))

    def restored(self, tokenizer: Tokenizer, ids: Sequence[int]) -> str:
        """The text with the spans of a target: behind each sentinel what it stood for."""
        spans = dict(_spans(ids, self.marks))
        texts = [tokenizer.decode(spans.get(mark, [])) for mark in self.marks]
        return "".join(chain.from_iterable(zip_longest(self.parts, texts, fillvalue="")))


def restore(model: Transformer, tokenizer: Tokenizer, text: str, max_new_tokens: int) -> str:
    """`text` with what an encoder-decoder writes in place of each <mask>, the likeliest token each time.

    Raises:
        ConfigError: the text is longer than the model's context, or hides more spans than there are sentinels.
    """
    hidden = HiddenSpans.of(tokenizer, text)
    source_bs = _tokens(model, hidden.source)
    with inference(model):
        memory = model.encode_source(source_bs)
    steps = generate(
        model,
        torch.full_like(source_bs[:, :1], start_token(tokenizer)),
        max_new_tokens=max_new_tokens,
        stop_ids=[tokenizer.end_of_text],
        memory=memory,
    )
    return hidden.restored(tokenizer, [int(token_b.item()) for token_b in steps])


def show_hidden(tokenizer: Tokenizer, ids: list[int], marks: Collection[int]) -> str:
    """The text of `ids` with <mask> where one of `marks` stands for a token or a span."""
    texts: list[str] = []
    part: list[int] = []
    for id_ in ids:
        if id_ in marks:
            texts.append(tokenizer.decode(part))
            part = []
        else:
            part.append(id_)
    return MASK.join([*texts, tokenizer.decode(part)])


def _hidden_ids(tokenizer: Tokenizer, parts: list[str], marks: list[int]) -> list[int]:
    """The ids of a document whose parts have a mark between them."""
    ids = [tokenizer.end_of_text]
    for part, mark in zip_longest(parts, marks):
        ids += tokenizer.encode(part) + ([] if mark is None else [mark])
    return ids


def _tokens(model: Transformer, ids: list[int]) -> torch.Tensor:
    check_fits(model.config.context_length, len(ids))
    return torch.tensor([ids], device=next(model.parameters()).device)


def _spans(ids: Iterable[int], marks: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Each mark of `ids` with what follows it."""
    mark, span = None, list[int]()
    for id_ in ids:
        if id_ in marks:
            if mark is not None:
                yield mark, span
            mark, span = id_, []
        else:
            span.append(id_)
    if mark is not None:
        yield mark, span
