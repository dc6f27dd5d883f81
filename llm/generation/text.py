"""Text in, text out: prompts of any kind, and output that streams whole characters."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llm.errors import ConfigError
from llm.generation.abilities import continues_prompt, is_decoder_lm
from llm.generation.context import check_fits, room_after
from llm.generation.engine import GREEDY, generate
from llm.generation.mode import inference
from llm.generation.request import Token
from llm.generation.sampling import Sampling
from llm.model import Transformer
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer, start_token


def stream_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    sampling: Sampling = GREEDY,
    max_new_tokens: int,
    stop_ids: Sequence[int] | None = None,
    seed: int | None = None,
) -> Iterator[str]:
    """Yield what a model writes for `prompt` as it comes; the pieces joined are the text that `complete` gives.

    That is what follows it, or the target of it, of a model that was trained on pairs. Ids are taken as they are, those of
    a source with the end of text behind it.

    A character of several tokens comes when it is whole, and bytes that are no UTF-8 as U+FFFD. The text ends
    before the first of `stop_ids`, by default the tokenizer's end of text. An empty prompt starts a document.

    Raises:
        ContextError: a source, of text or ids, is longer than the model's context, or leaves no room within it.
    """
    how: dict[str, Any] = {"sampling": sampling, "max_new_tokens": max_new_tokens, "seed": seed}
    stop_ids = _stop_ids(tokenizer, stop_ids)
    steps = _steps(model, tokenizer, prompt, 1, stop_ids, **how)
    return decode_stream(tokenizer, (token_b.item() for token_b in steps), stop_ids)


class TextWriter:
    """The text of tokens as they come, in whole characters, up to the first of some strings.

    What may be the beginning of such a string is held back until it is known. `stopped` says whether one came, `length` how
    many characters have, those that are held back included.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped, self.length = False, 0

    def take(self, token: Token) -> str:
        """The text that a request's token adds: none of one that stops it, and with the last what was held back."""
        text = "" if token.finish == "stop" else self.add(token.id)
        return text if token.finish is None else text + self.finish()

    def add(self, id_: int) -> str:
        """What can be said of the text that this token adds."""
        return self.say(self._decoder.decode(self._tokenizer.decode_bytes([id_])), final=False)

    def finish(self) -> str:
        """What was held back: the text ends here."""
        return self.say(self._decoder.decode(b"", final=True), final=True)

    def say(self, piece: str, *, final: bool) -> str:
        """What can be said once `piece` has come, of which nothing follows where it is `final`."""
        if self.stopped:
            return ""
        self.length += len(piece)
        text = self._held + piece
        ends = [end for stop in self._stops if (end := text.find(stop)) >= 0]
        self.stopped = bool(ends)
        said = min(ends) if ends else len(text) if final else len(text) - self._beginning(text)
        self._held = text[said:]
        return text[:said]

    def _beginning(self, text: str) -> int:
        """How many of the last characters may belong to a stop."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)


def token_text(tokenizer: Tokenizer, id_: int) -> str:
    """A token as a reader is shown it."""
    special = {token: name for name, token in tokenizer.special_tokens.items()}
    return special.get(id_) or tokenizer.decode([id_])


def decode_stream(tokenizer: Tokenizer, ids: Iterable[int | float], stop_ids: Sequence[int]) -> Iterator[str]:
    """Yield the text of `ids` up to a stop, each piece as soon as its last character is whole."""
    writer = TextWriter(tokenizer)
    for id_ in ids:
        if id_ in stop_ids:
            break
        if piece := writer.add(int(id_)):
            yield piece
    if rest := writer.finish():
        yield rest


def complete(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    num_samples: int = 1,
    sampling: Sampling = GREEDY,
    max_new_tokens: int,
    stop_ids: Sequence[int] | None = None,
    seed: int | None = None,
) -> list[str]:
    """`num_samples` texts for `prompt`, drawn as one batch; as `stream_text` otherwise."""
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples}: it must be at least 1.")
    how: dict[str, Any] = {"sampling": sampling, "max_new_tokens": max_new_tokens, "seed": seed}
    stop_ids = _stop_ids(tokenizer, stop_ids)
    steps = _steps(model, tokenizer, prompt, num_samples, stop_ids, **how)
    return _texts(tokenizer, steps, stop_ids, num_samples)


def translate(
    model: Transformer,
    tokenizer: Tokenizer,
    sources: Sequence[str | Sequence[int]],
    *,
    sampling: Sampling = GREEDY,
    max_new_tokens: int,
    seed: int | None = None,
) -> list[str]:
    """What an encoder-decoder writes for each of `sources`, texts or ids up to their ends of text, as one batch.

    Raises:
        ContextError: a source is longer than the model's context.
    """
    rows = [source_ids(tokenizer, source) if isinstance(source, str) else list(source) for source in sources]
    stop_ids = (tokenizer.end_of_text,)
    how: dict[str, Any] = {"sampling": sampling, "max_new_tokens": max_new_tokens, "seed": seed}
    steps = _target_steps(model, tokenizer, rows, stop_ids, **how)
    return _texts(tokenizer, steps, stop_ids, len(sources))


def source_ids(tokenizer: Tokenizer, source: str) -> list[int]:
    """The ids of a source as a model reads them that was trained on pairs: an end of text stands behind it."""
    return [*tokenizer.encode(source), tokenizer.end_of_text]


def prompt_and_source(
    model: Transformer, tokenizer: Tokenizer, ids: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The prompt and the source of a request for a text of `ids`: a decoder goes on from them and has no source.

    An encoder-decoder reads them with an end of text behind them, and its prompt begins a target.
    """
    if is_decoder_lm(model):
        return list(ids), []
    return [start_token(tokenizer)], [*ids, tokenizer.end_of_text]


def _steps(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    n_rows: int,
    stop_ids: Sequence[int],
    *,
    max_new_tokens: int,
    **how: Any,
) -> Iterator[Tensor]:
    """The tokens (b,) of `n_rows` texts for one prompt, step by step."""
    goes_on = continues_prompt(model, tokenizer)
    if isinstance(prompt, str):
        prompt = tokenizer.encode(prompt) if goes_on else source_ids(tokenizer, prompt)
    if not is_decoder_lm(model):
        return _target_steps(
            model, tokenizer, [prompt] * n_rows, stop_ids, max_new_tokens=max_new_tokens, **how
        )
    # At least the end of text stands there that precedes every document.
    ids = list(prompt) or [tokenizer.end_of_text]
    if not goes_on:  # a target that outgrew the context would be written without its source
        check_fits(model.config.context_length, len(ids), 1, advice="Shorten it.")
        max_new_tokens = min(max_new_tokens, room_after(ids, model.config.context_length))
    prompt_bt = torch.tensor([ids]).expand(n_rows, -1)
    return generate(model, prompt_bt, max_new_tokens=max_new_tokens, stop_ids=stop_ids, **how)


def _target_steps(
    model: Transformer,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    **how: Any,
) -> Iterator[Tensor]:
    """The tokens (b,) of an encoder-decoder's targets, step by step."""
    check_fits(model.config.context_length, max(map(len, sources)), what="The source")
    rows = [torch.tensor(source) for source in sources]
    source_bs = pad_sequence(rows, batch_first=True, padding_value=PADDING)
    source_bs = source_bs.to(next(model.parameters()).device)
    documents_bs = torch.where(source_bs == PADDING, PADDING, 0)
    with inference(model):
        memory = model.encode_source(source_bs.clamp(min=0), documents_bs)
    start_bt = torch.full((len(sources), 1), start_token(tokenizer))
    return generate(model, start_bt, stop_ids=stop_ids, memory=memory, **how)


def _texts(tokenizer: Tokenizer, steps: Iterable[Tensor], stop_ids: Sequence[int], n_rows: int) -> list[str]:
    """The text of each row of a stream of tokens (b,)."""
    rows = zip(*[token_b.tolist() for token_b in steps], strict=True)
    return ["".join(decode_stream(tokenizer, row, stop_ids)) for row in rows] or [""] * n_rows


def _stop_ids(tokenizer: Tokenizer, stop_ids: Sequence[int] | None) -> tuple[int, ...]:
    return (tokenizer.end_of_text,) if stop_ids is None else tuple(stop_ids)
