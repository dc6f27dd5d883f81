"""What evaluations tell of each example: documents of a stream, texts with labels.

Shapes: d documents, k tokens, n texts, l labels.
"""

import hashlib
import math
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from llm.data import TokenStream
from llm.data.collators.base import Collator
from llm.evaluation.result import Row
from llm.tokenizer import Tokenizer


def text_id(text: str | bytes) -> str:
    """What tells a text from others, whatever model or tokenizer read it.

    Of a str, letters and digits alone count, without case and accents: some tokenizers drop these, and set signs apart.
    """
    if isinstance(text, str):
        plain = unicodedata.normalize("NFKD", text).casefold()
        text = "".join(filter(str.isalnum, plain)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


class DocumentSums:
    """Adds up what the tokens of a stream cost, document by document."""

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        self._starts = stream.documents.astype(np.int64)
        self._nll_d = np.zeros(len(self._starts))
        self._tokens_d = np.zeros(len(self._starts), np.int64)

    def add(self, positions_k: np.ndarray, nll_k: np.ndarray) -> None:
        """Take tokens by their positions; an end of text belongs to the document that it precedes."""
        document_k = np.searchsorted(self._starts, positions_k, side="right") - 1
        np.add.at(self._nll_d, document_k, nll_k)
        np.add.at(self._tokens_d, document_k, 1)

    def rows(self, tokenizer: Tokenizer, metrics: Collection[str]) -> list[Row]:
        """A document a row, with its part in those of `metrics` that add up; one of which nothing was predicted has none."""
        rows = []
        places = zip(self._starts, self.stream.ends, self._nll_d, self._tokens_d, strict=True)
        for start, end, nll, tokens in places:
            text = tokenizer.decode_bytes(self.stream.tokens[start:end].tolist())
            scores = {"loss": [nll, float(tokens)], "bits_per_byte": [nll / math.log(2), float(len(text))]}
            if tokens:
                shown = {name: score for name, score in scores.items() if name in metrics}
                rows.append({"id": text_id(text), "scores": shown})
        return rows


def read_texts(stream: TokenStream, collate: Collator, tokenizer: Tokenizer) -> list[str]:
    """The labelled texts of a stream, uncut, in the order in which they are scored."""
    view = collate.samples(stream, len(stream) + 1, 0)
    pairs = view.in_order(np.arange(view.n_in_order))
    return [tokenizer.decode(pair.source_s[:-1].tolist()) for pair in pairs]


def label_rows(
    texts: Sequence[str], labels: Sequence[str], logits_nl: Tensor, targets_n: Tensor
) -> list[Row]:
    """A text a row: its label, the one that was predicted, and how likely it was."""
    loss_n = torch.nn.functional.cross_entropy(logits_nl, targets_n, reduction="none").tolist()
    likeliest = logits_nl.softmax(-1).max(-1)
    rows = []
    for number, (target, predicted) in enumerate(
        zip(targets_n.tolist(), likeliest.indices.tolist(), strict=True)
    ):
        rows.append(
            {
                "id": text_id(texts[number]),
                "text": texts[number],
                "target": labels[target],
                "prediction": labels[predicted],
                "probability": likeliest.values[number].item(),
                "scores": {"accuracy": [float(predicted == target), 1.0], "loss": [loss_n[number], 1.0]},
            }
        )
    return rows


def number_rows(texts: Sequence[str], targets_n: Tensor, predicted_n: Tensor, mean_n: Tensor) -> list[Row]:
    """A text a row: its number and the one that was predicted, with their squared error and that of the mean."""
    errors_n2 = torch.stack([predicted_n - targets_n, mean_n - targets_n], 1).double().square()
    return [
        {
            "id": text_id(text),
            "text": text,
            "target": target,
            "prediction": predicted,
            "scores": {"mse": [error, 1.0], "mean_mse": [of_mean, 1.0]},
        }
        for text, target, predicted, (error, of_mean) in zip(
            texts, targets_n.tolist(), predicted_n.tolist(), errors_n2.tolist(), strict=True
        )
    ]
