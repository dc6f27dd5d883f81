"""Hidden spans: sentinels stand for them in a source, and an encoder-decoder writes what they were.

Shapes: b batch, t time of a window, s time of a source, k time of a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from llm.data.collators.base import Batch, Given, Setting, TokenCounts, WindowCollator, document_numbers
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.model.mask import PADDING
from llm.tokenizer import SENTINEL, Tokenizer, sentinels, start_token


@dataclass(frozen=True)
class Denoiser:
    """One way to hide spans: a share of the tokens, in spans of `mean_span` tokens on average.

    Without `mean_span` it is one span, the end of the window: a prefix is continued.
    """

    share: float
    mean_span: float | None = None

    def __post_init__(self) -> None:
        spans = 0.0 if self.mean_span is None else 1 / max(self.mean_span, 1e-9)
        if not (self.share > 0 and self.share * (1 + spans) <= 0.9):
            raise ConfigError(
                f"task.collator.denoisers: share={self.share}, mean_span={self.mean_span}: share * (1 + 1 / mean_span) "
                "must be above 0 and at most 0.9, since the source and the target of a window must both fit one."
            )

    def sizes(self, length: int) -> tuple[int, int]:
        """How many of `length` tokens are hidden, and in how many spans; none of fewer than two tokens."""
        if length < 2:
            return 0, 0
        hidden = min(max(1, round(self.share * length)), length - 1)
        spans = 1 if self.mean_span is None else max(1, round(hidden / self.mean_span))
        return hidden, min(spans, length - hidden)


class Row(NamedTuple):
    """One window: its source and its target, each with the document of every token."""

    source_s: np.ndarray
    source_documents_s: np.ndarray
    target_k: np.ndarray
    target_documents_k: np.ndarray


class SpanCollator(WindowCollator):
    """Hides spans of each window, as T5 does (arXiv 1910.10683): one sentinel stands for each.

    The target is each sentinel and what it stands for, and an end of text. Which spans follows from the run's seed and
    the sample's number alone. Of several `denoisers` a sample takes one, each as likely (UL2, arXiv 2205.05131, without
    its mode tokens). Attention stays within a document, of the source and of the target.

    Args:
        setting: the run's tokenizer, which must have sentinels, its seed and the model, which says how long windows are.
        denoisers: `share` and `mean_span` of each, see `Denoiser`.
        within_documents: whether attention stays within a document; else it sees the whole window, as T5's does.

    Raises:
        ConfigError: the tokenizer has too few sentinels, or a denoiser hides too much or nothing.
    """

    given: Given = "hidden"
    extra_fields = ("documents_bt", "source_documents_bs")

    def __init__(
        self,
        setting: Setting,
        *,
        denoisers: Sequence[dict[str, Any]] = ({"share": 0.15, "mean_span": 3.0},),
        within_documents: bool = True,
    ) -> None:
        self.denoisers = [_denoiser(keys) for keys in denoisers]
        if not self.denoisers:
            raise ConfigError("task.collator.denoisers is empty: give one at least, such as {share: 0.15}.")
        self.seed, self.within_documents = setting.seed, within_documents
        self.end_of_text = setting.tokenizer.end_of_text
        self.start = start_token(setting.tokenizer)
        sizes = [denoiser.sizes(setting.model_config.context_length) for denoiser in self.denoisers]
        self.sentinels = _enough_sentinels(setting.tokenizer, max(spans for _, spans in sizes))
        self.source_length = max(
            setting.model_config.context_length - hidden + spans for hidden, spans in sizes
        )
        self.target_length = max(hidden + spans + 1 for hidden, spans in sizes)

    def window_tokens(self, length: int) -> TokenCounts:
        """What is read and what is written are of one window."""
        return TokenCounts(length, self.target_length, self.target_length, self.source_length)

    def __call__(self, windows: np.ndarray, indices_b: np.ndarray) -> Batch:
        """The batch of the windows' tokens but their last ones."""
        rows = [
            self._row(window, sample)
            for window, sample in zip(windows[:, :-1], indices_b.tolist(), strict=True)
        ]
        targets_bk = filled([row.target_k for row in rows], self.target_length, IGNORED)
        source_bs = filled([row.source_s for row in rows], self.source_length, self.end_of_text)
        source_documents_bs = filled([row.source_documents_s for row in rows], self.source_length, PADDING)
        target_documents_bk = filled([row.target_documents_k for row in rows], self.target_length, PADDING)
        tokens_bk = shifted(targets_bk, self.start)
        # A position of the decoder belongs to the document of the token that it reads; the first one to what follows.
        documents_bk = np.concatenate([target_documents_bk[:, :1], target_documents_bk[:, :-1]], axis=1)
        if not self.within_documents:
            source_documents_bs, documents_bk = (
                np.where(documents == PADDING, PADDING, 0)
                for documents in (source_documents_bs, documents_bk)
            )
        return Batch.of(
            tokens_bt=tokens_bk,
            targets_bk=targets_bk,
            indices_b=indices_b,
            documents_bt=documents_bk,
            source_bs=source_bs,
            source_documents_bs=source_documents_bs,
        )

    def _row(self, window_t: np.ndarray, sample: int) -> Row:
        # A window of nothing is sample -1.
        key = np.array([self.seed, sample % (1 << 64)], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        denoiser = self.denoisers[random.integers(len(self.denoisers))]
        tokens_t = window_t[window_t != IGNORED]
        documents_t = document_numbers(tokens_t[None], self.end_of_text)[0]
        hidden, spans = denoiser.sizes(len(tokens_t))
        if not hidden:
            nothing = np.zeros(0, np.int64)
            return Row(tokens_t, documents_t, nothing, nothing)
        is_hidden_t, begins_t = hide_spans(len(tokens_t), hidden, spans, random)
        marks = self.sentinels[:spans]
        marked_t = tokens_t.copy()
        marked_t[begins_t] = marks
        shown_t = ~is_hidden_t | begins_t
        # Where each span begins among the hidden tokens.
        at = np.flatnonzero(begins_t[is_hidden_t])
        source_documents_s = documents_t[shown_t]
        # A document that is hidden whole counts to the one that its span begins in, or it would see nothing at all.
        spans_documents = documents_t[begins_t][np.cumsum(begins_t[is_hidden_t]) - 1]
        hidden_documents = documents_t[is_hidden_t]
        is_shown = np.isin(hidden_documents, source_documents_s)
        hidden_documents = np.where(is_shown, hidden_documents, spans_documents)
        target_k = np.append(np.insert(tokens_t[is_hidden_t], at, marks), self.end_of_text)
        target_documents_k = np.insert(hidden_documents, at, documents_t[begins_t])
        target_documents_k = np.append(target_documents_k, hidden_documents[-1])
        return Row(marked_t[shown_t], source_documents_s, target_k, target_documents_k)


def hide_spans(
    length: int, hidden: int, spans: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which of `length` tokens are hidden, and which of them begin a span, each (length,) of bool.

    Shown and hidden stretches take turns, a shown one first; every way to part them is as likely.
    """
    shown_lengths = _parts(length - hidden, spans, random)
    hidden_lengths = _parts(hidden, spans, random)
    lengths = np.stack([shown_lengths, hidden_lengths], axis=1).reshape(-1)
    is_hidden_t = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)
    begins_t = is_hidden_t & ~np.concatenate([[False], is_hidden_t[:-1]])
    return is_hidden_t, begins_t


def _parts(total: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """Positive whole numbers (parts,) that add up to `total`, any of them as likely."""
    cuts = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def shifted(targets_bk: np.ndarray, start: int) -> np.ndarray:
    """What a decoder reads to write `targets_bk`: the start token and each target's predecessor."""
    starts_b1 = np.full((len(targets_bk), 1), start, np.int64)
    tokens_bk = np.concatenate([starts_b1, targets_bk[:, :-1]], axis=1)
    return np.where(tokens_bk == IGNORED, start, tokens_bk)


def filled(rows: Sequence[np.ndarray], length: int, fill: int) -> np.ndarray:
    """The rows as one array (b, length), with `fill` behind each."""
    table = np.full((len(rows), length), fill, np.int64)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def _denoiser(keys: dict[str, Any]) -> Denoiser:
    try:
        return Denoiser(**keys)
    except TypeError:
        raise ConfigError(
            f"task.collator.denoisers: {keys} must be share and, for more than one span, mean_span."
        ) from None


def _enough_sentinels(tokenizer: Tokenizer, wanted: int) -> np.ndarray:
    found = sentinels(tokenizer)
    if len(found) < wanted:
        raise ConfigError(
            f"A window hides {wanted} spans, and the tokenizer has {len(found)} sentinels ({SENTINEL.format(0)} and so "
            "on): raise task.sentinels, or take longer spans."
        )
    return np.array(found)
