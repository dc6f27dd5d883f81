"""The tag of each word of a text, and what a model says of the words of windows.

Shapes: b batch, k scored positions, w words, l labels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm.data.collators.words import MARKS, NOTHING, Window, laid_out, spans
from llm.data.documents.bio import OUTSIDE, WORD, entities, is_bio, spaced
from llm.generation.mode import inference
from llm.model import Transformer
from llm.tokenizer import Tokenizer

WINDOWS_AT_ONCE = 16


def word_scores(
    model: Transformer, tokenizer: Tokenizer, windows: Sequence[Window], *, whole: bool = False
) -> list[Tensor]:
    """The scores of the labels (w, l) for the words of each window, on the CPU in float32.

    With `whole` those of the text as a whole stand before them.
    """
    found: list[Tensor] = []
    device = next(model.parameters()).device
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        some = windows[first : first + WINDOWS_AT_ONCE]
        arrays = laid_out(some, tokenizer, model.config, whole=whole)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with inference(model):
            scores_bkl = model(inputs.pop("tokens_bt"), **inputs).float().cpu()
        found += [
            scores_kl[: len(window.words) + whole] for window, scores_kl in zip(some, scores_bkl, strict=True)
        ]
    return found


def windows_of(words: Sequence[np.ndarray], length: int, lead: np.ndarray) -> list[Window]:
    """The windows, of at most `length` tokens, of a text's words behind `lead`, which is cut to half a window."""
    lead = lead[: length // 2]
    room = length - MARKS - (len(lead) + 1 if len(lead) else 0)
    cut = spans(np.array([len(word) for word in words], np.int64), room)
    return [Window(0, lead, list(words[span.first : span.end]), span, b"") for span in cut]


def encoded_words(tokenizer: Tokenizer, words: Sequence[str]) -> list[np.ndarray]:
    """The ids of each word by itself, an end of text for one that the tokenizer makes nothing of."""
    return [ids if len(ids) else np.array([tokenizer.end_of_text]) for ids in tokenizer.encode_batch(words)]


def scored_once(windows: Sequence[Window], scores: Sequence[Tensor]) -> Tensor:
    """The scores (w, l) of all words of a document, each from the window that scores it."""
    parts = [
        scores_wl[span.begin - span.first : span.stop - span.first]
        for (_, _, _, span, _), scores_wl in zip(windows, scores, strict=True)
    ]
    return torch.cat(parts)


def best_tags(scores_wl: Tensor, labels: Sequence[str]) -> list[str]:
    """The likeliest tags of a document's words; of BIO tags the likeliest that go together (Viterbi, 1967).

    I-x then stands behind B-x or I-x alone.
    """
    if not is_bio(labels):
        return [labels[number] for number in scores_wl.argmax(-1).tolist()]
    log_wl = scores_wl.log_softmax(-1).double().numpy()
    follows_ll = np.array([[_may_follow(one, other) for other in labels] for one in labels])
    barred_ll = np.where(follows_ll, 0.0, -np.inf)
    best_l = log_wl[0] + [0.0 if _may_follow(OUTSIDE, label) else -np.inf for label in labels]
    came_from: list[np.ndarray] = []
    for log_l in log_wl[1:]:
        ways_ll = best_l[:, None] + barred_ll
        came_from.append(ways_ll.argmax(0))
        best_l = ways_ll.max(0) + log_l
    path = [int(best_l.argmax())]
    for from_l in reversed(came_from):
        path.append(int(from_l[path[-1]]))
    return [labels[number] for number in reversed(path)]


def _may_follow(before: str, tag: str) -> bool:
    return not tag.startswith("I-") or (before != OUTSIDE and before[2:] == tag[2:])


class TaggedWord(NamedTuple):
    """Characters [start, end) of a text, their tag, and how likely it is by itself."""

    start: int
    end: int
    tag: str
    probability: float


class Mention(NamedTuple):
    """Characters [start, end) of a text that name something of a kind, and how likely the least likely of its tags is."""

    kind: str
    start: int
    end: int
    probability: float


class TextWords(NamedTuple):
    """The words of a text, of letters or else one character: where they stand, and the windows that a model reads of them."""

    spans: list[tuple[int, int]]
    windows: list[Window]

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str, length: int) -> "TextWords":
        """The words of `text`, in windows of at most `length` tokens."""
        spans = [match.span() for match in WORD.finditer(text)]
        if not spans:
            return cls([], [])
        ids = encoded_words(tokenizer, [word.decode() for word in spaced([text[a:b] for a, b in spans])])
        return cls(spans, windows_of(ids, length, NOTHING.lead))

    def tagged(self, scores: Sequence[Tensor], labels: Sequence[str]) -> list[TaggedWord]:
        """Each word with its tag, by what `word_scores` says of the windows."""
        if not self.spans:
            return []
        scores_wl = scored_once(self.windows, scores)
        return [
            TaggedWord(*span, tag, float(likely_l[labels.index(tag)]))
            for span, tag, likely_l in zip(
                self.spans, best_tags(scores_wl, labels), scores_wl.softmax(-1), strict=True
            )
        ]


def tagged_words(model: Transformer, tokenizer: Tokenizer, text: str) -> list[TaggedWord]:
    """Each word of a text with its tag."""
    words = TextWords.of(tokenizer, text, model.config.context_length)
    return words.tagged(word_scores(model, tokenizer, words.windows), model.config.labels)


def mentions(words: Sequence[TaggedWord]) -> list[Mention]:
    """What words with BIO tags name; of other tags, each word by itself."""
    tags = [word.tag for word in words]
    if not is_bio([*tags, "B-"]):
        return [Mention(word.tag, word.start, word.end, word.probability) for word in words]
    return [
        Mention(
            kind, words[first].start, words[end - 1].end, min(word.probability for word in words[first:end])
        )
        for kind, first, end in entities(tags)
    ]


def tags_text(text: str, tagged: Sequence[TaggedWord]) -> str:
    """The tagged words of a text for a person: a line for each entity of BIO tags, or else for each word, what it is first."""
    words, tags = [text[word.start : word.end] for word in tagged], [word.tag for word in tagged]
    if not is_bio([*tags, "B-"]):
        return "\n".join(f"{tag}\t{word}" for word, tag in zip(words, tags, strict=True))
    return "\n".join(f"{kind}\t{' '.join(words[first:end])}" for kind, first, end in entities(tags))
