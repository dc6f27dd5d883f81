"""Text in, text out: prompts of any kind, and output that streams whole characters."""

import codecs
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llm.errors import ConfigError
from llm.generation.engine import GREEDY, generate
from llm.generation.mode import inference
from llm.generation.sampling import Sampling
from llm.model import Transformer
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer, start_token


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


class TextWriter:
    """The text of tokens as they come, in whole characters, up to the first of some strings.

    What may be the beginning of such a string is held back until it is known. `stopped` says whether one came.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

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
    """`num_samples` continuations of `prompt`, a text or ids, without it, drawn as one batch; as `stream_text` otherwise."""
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples}: it must be at least 1.")
    stop_ids = _stop_ids(tokenizer, stop_ids)
    prompt_bt = _prompt(tokenizer, prompt).expand(num_samples, -1)
    steps = generate(
        model, prompt_bt, sampling=sampling, max_new_tokens=max_new_tokens, stop_ids=stop_ids, seed=seed
    )
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
        ConfigError: a source is longer than the model's context.
    """
    device = next(model.parameters()).device
    rows = [
        torch.tensor(source_ids(tokenizer, source) if isinstance(source, str) else source)
        for source in sources
    ]
    source_bs = pad_sequence(rows, batch_first=True, padding_value=PADDING).to(device)
    documents_bs = torch.where(source_bs == PADDING, PADDING, 0)
    with inference(model):
        memory = model.read(source_bs.clamp(min=0), documents_bs)
    start_bt = torch.full((len(sources), 1), start_token(tokenizer))
    stop_ids = (tokenizer.end_of_text,)
    steps = generate(
        model,
        start_bt,
        sampling=sampling,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
        seed=seed,
        memory=memory,
    )
    return _texts(tokenizer, steps, stop_ids, len(sources))


def continue_source(model: Transformer, tokenizer: Tokenizer, source: str, max_new_tokens: int) -> str:
    """What a decoder that was trained on pairs writes for a source, greedily.

    Raises:
        ConfigError: the source leaves no room within the model's context.
    """
    ids, context = source_ids(tokenizer, source), model.config.context_length
    if len(ids) >= context:
        raise ConfigError(
            f"The text has {len(ids)} tokens, and the model sees {context} of it and its target."
        )
    return complete(model, tokenizer, ids, max_new_tokens=min(max_new_tokens, context - len(ids)))[0]


def source_ids(tokenizer: Tokenizer, source: str) -> list[int]:
    """The ids of a source as a model reads them that was trained on pairs: an end of text stands behind it."""
    return [*tokenizer.encode(source), tokenizer.end_of_text]


def _texts(tokenizer: Tokenizer, steps: Iterable[Tensor], stop_ids: Sequence[int], n_rows: int) -> list[str]:
    """The text of each row of a stream of tokens (b,)."""
    rows = zip(*[token_b.tolist() for token_b in steps], strict=True)
    return ["".join(decode_stream(tokenizer, row, stop_ids)) for row in rows] or [""] * n_rows


def _stop_ids(tokenizer: Tokenizer, stop_ids: Sequence[int] | None) -> tuple[int, ...]:
    return (tokenizer.end_of_text,) if stop_ids is None else tuple(stop_ids)


def _prompt(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> Tensor:
    """The ids (1, t) of a prompt, at least the end-of-text token that precedes every document."""
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    return torch.tensor([ids or [tokenizer.end_of_text]])
