"""Texts and their labels: what all collators of labels share, and one label, or a number, for a whole text.

Shapes: b batch, t time, k scored positions.
"""

import dataclasses
import math

import numpy as np

from llm.data.collators.base import Batch, Given, Setting, TokenCounts
from llm.data.collators.pairs import Pair, Pairs, padded, padded_length
from llm.data.collators.spans import filled
from llm.data.corpus import TokenStream
from llm.data.sampling.windows import IGNORED
from llm.errors import DataError
from llm.model import ModelConfig
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer, framed


def label_of(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """A label by its ids (k,), without the space that some tokenizers set before a word."""
    return tokenizer.decode(ids.tolist()).strip()


def labels_of(stream: TokenStream, tokenizer: Tokenizer) -> tuple[str, ...]:
    """The labels that the pairs of a stream have, sorted: their targets.

    Raises:
        DataError: there are fewer than two, or the documents are no pairs.
    """
    view = Pairs(stream, len(stream) + 1, 0, tokenizer.end_of_text)
    distinct = {view.pair(index).target_k[:-1].tobytes() for index in range(view.size)}
    labels = sorted({label_of(np.frombuffer(ids, np.int64), tokenizer) for ids in distinct})
    if len(labels) < 2:
        raise DataError(
            f"The training text has the labels {labels}: at least two are needed to tell texts apart."
        )
    return tuple(labels)


class LabelCollator:
    """Base of what makes batches of labelled samples: it says which head the model gets.

    Args:
        setting: the run's tokenizer, and the model with its labels.
    """

    given: Given = "text"

    extra_fields = ("documents_bt",)

    def __init__(self, setting: Setting) -> None:
        self.tokenizer, self.model_config = setting.tokenizer, setting.model_config
        self.label_ids = {label: id_ for id_, label in enumerate(setting.model_config.labels)}

    @classmethod
    def shaped(cls, model_config: ModelConfig, stream: TokenStream, tokenizer: Tokenizer) -> ModelConfig:
        """`model_config` with the head that the training text `stream` asks for."""
        raise NotImplementedError

    def label_id(self, label: str) -> int:
        """The id of a label: which of the model's labels it is.

        Raises:
            DataError: the model has none of that name.
        """
        if label not in self.label_ids:
            known = ", ".join(self.label_ids)
            raise DataError(
                f"A text has the label {label!r}, which the model never saw in training: it knows {known}."
            )
        return self.label_ids[label]


class LabelledTexts(Pairs):
    """A stream of pairs whose target is a label."""

    def n_targets(self, indices: np.ndarray) -> None:
        """One in each."""


class TextLabelCollator(LabelCollator):
    """A whole text is scored at one position: an encoder's first, and a decoder's last.

    A text longer than the context is cut to its beginning. A label that the model does not have is a DataError.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        # A model of an earlier version may have the space.
        self.label_ids = {label.strip(): id_ for label, id_ in self.label_ids.items()}

    @classmethod
    def shaped(cls, model_config: ModelConfig, stream: TokenStream, tokenizer: Tokenizer) -> ModelConfig:
        """`model_config` with a label for each that the pairs of `stream` have, and BERT's pooler."""
        pooler = model_config.architecture == "encoder"
        labels = labels_of(stream, tokenizer)
        return dataclasses.replace(model_config, labels=labels, labelled="text", pooler=pooler)

    def samples(self, stream: TokenStream, length: int, seed: int) -> LabelledTexts:
        """A stream of texts and labels."""
        return LabelledTexts(stream, length, seed, self.tokenizer.end_of_text)

    def mean_tokens(self, view: LabelledTexts) -> TokenCounts:
        """The average text's; one position is scored."""
        length = float(view.source_lengths.mean())
        return TokenCounts(length, length, 1.0)

    def longest_tokens(self, view: LabelledTexts) -> TokenCounts:
        """The longest text's, with the marks around it."""
        length = padded(view.most_read + 1, self.model_config.context_length)
        return TokenCounts(length, length, 1.0)

    def __call__(self, pairs: list[Pair], indices_b: np.ndarray) -> Batch:
        """The batch of texts, padded to the longest."""
        longest = self.model_config.context_length
        texts = [framed(self.tokenizer, pair.source_s[:-1].tolist(), longest) for pair in pairs]
        tokens_bt = filled([np.array(text) for text in texts], padded_length(texts, longest), PADDING)
        lengths_b = (tokens_bt != PADDING).sum(axis=1)
        positions_b = (
            np.zeros_like(indices_b) if self.model_config.architecture == "encoder" else lengths_b - 1
        )
        return Batch.of(
            tokens_bt=np.where(tokens_bt == PADDING, self.tokenizer.end_of_text, tokens_bt),
            targets_bk=np.array([[self.target(pair)] for pair in pairs]),
            indices_b=indices_b,
            documents_bt=np.where(tokens_bt == PADDING, PADDING, 0),
            positions_bk=positions_b[:, None],
        )

    def target(self, pair: Pair) -> float:
        """The id of a pair's label, `IGNORED` for a pair of nothing."""
        if not len(pair.target_k):
            return IGNORED
        return self.label_id(label_of(pair.target_k[:-1], self.tokenizer))


class NumberCollator(TextLabelCollator):
    """A number is predicted for a whole text, where `TextLabelCollator` has a label; a pair of nothing has NaN."""

    @classmethod
    def shaped(cls, model_config: ModelConfig, stream: TokenStream, tokenizer: Tokenizer) -> ModelConfig:
        """`model_config` with a score for the number, and what standardizes it; BERT's pooler."""
        view = Pairs(stream, len(stream) + 1, 0, tokenizer.end_of_text)
        values = np.array([_value(tokenizer, view.pair(index)) for index in range(view.size)])
        if not values.std() > 0:
            raise DataError("The numbers of the training text are all the same: there is nothing to learn.")
        return dataclasses.replace(
            model_config,
            labels=("number",),
            labelled="number",
            pooler=model_config.architecture == "encoder",
            number_mean=float(values.mean()),
            number_std=float(values.std()),
        )

    def target(self, pair: Pair) -> float:
        """A pair's number."""
        return _value(self.tokenizer, pair) if len(pair.target_k) else math.nan


def _value(tokenizer: Tokenizer, pair: Pair) -> float:
    """The number that a pair's target spells; a DataError where it is none."""
    text = tokenizer.decode(pair.target_k[:-1].tolist())
    try:
        # Some tokenizers set a number's parts apart.
        value = float(text.replace(" ", ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"A text has the label {text!r}: task=regression needs a number.")
    return value
