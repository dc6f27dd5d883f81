"""Sentences with a tag for each of their words, as samples and batches.

Shapes: b batch, k scored positions.
"""

import dataclasses

import numpy as np

from llm.data.collators.base import Batch, TokenCounts
from llm.data.collators.spans import filled
from llm.data.collators.words import LabelledWords, Window, WordCollator, laid_out
from llm.data.corpus import TokenStream
from llm.data.documents.bio import is_bio, tags_of, with_both_sides
from llm.data.sampling.windows import IGNORED
from llm.errors import DataError
from llm.model import ModelConfig
from llm.tokenizer import Tokenizer


class TaggedSentences(LabelledWords):
    """A stream of sentences with a tag for each word."""

    def tags(self, document: int) -> list[str]:
        """The tags of a sentence."""
        return tags_of(self.about(document))


class TagCollator(WordCollator):
    """Each word of a sentence is scored, an encoder's at its first token, a decoder's at its last.

    A word that several windows show is scored in the one that shows most around it.
    """

    @classmethod
    def shaped(cls, model_config: ModelConfig, stream: TokenStream, tokenizer: Tokenizer) -> ModelConfig:
        """`model_config` with the tags that the sentences of `stream` have."""
        view = TaggedSentences(stream, model_config.context_length, 0, tokenizer.end_of_text)
        tags = {tag for number in range(view.n_documents) for tag in view.tags(number)}
        if len(tags) < 2:
            raise DataError(f"The training text has the tags {sorted(tags)}: at least two are needed.")
        labels = sorted(with_both_sides(tags) if is_bio(sorted(tags)) else tags)
        return dataclasses.replace(model_config, labels=tuple(labels), labelled="words", pooler=False)

    def samples(self, stream: TokenStream, length: int, seed: int) -> TaggedSentences:
        """A stream of tagged sentences."""
        return TaggedSentences(stream, length, seed, self.tokenizer.end_of_text, stride=self.stride)

    def mean_tokens(self, view: TaggedSentences) -> TokenCounts:
        """The average window's; each word is scored."""
        return TokenCounts(view.tokens, view.tokens, view.n_words / max(1, view.size))

    def __call__(self, windows: list[Window], indices_b: np.ndarray) -> Batch:
        """The batch of windows, padded to the longest."""
        arrays = laid_out(windows, self.tokenizer, self.model_config)
        targets = [self._label_ids(window) for window in windows]
        targets_bk = filled(targets, arrays["positions_bk"].shape[1], IGNORED)
        return Batch.of(targets_bk=targets_bk, indices_b=indices_b, **arrays)

    def _label_ids(self, window: Window) -> np.ndarray:
        """The tag of each word by its id, `IGNORED` for those that are scored elsewhere."""
        label_ids = np.full(len(window.words), IGNORED, np.int64)
        first, _, begin, stop = window.span
        if stop > begin:
            scored = tags_of(window.about)[begin:stop]
            label_ids[begin - first : stop - first] = [self.label_id(tag) for tag in scored]
        return label_ids
