"""Questions on passages, as samples and batches.

Shapes: b batch, k scored positions.
"""

import dataclasses
from functools import lru_cache

import numpy as np

from llm.data.collators.base import Batch, TokenCounts
from llm.data.collators.spans import filled
from llm.data.collators.words import LabelledWords, Window, WordCollator, laid_out
from llm.data.corpus import TokenStream
from llm.data.documents.answers import Question
from llm.data.sampling.windows import IGNORED
from llm.model import ModelConfig
from llm.tokenizer import Tokenizer

EDGES = ("start", "end")
# Added up, what a scored position is of the answer.
START, END = 1, 2

question_of = lru_cache(maxsize=64)(Question.of)


class Questions(LabelledWords):
    """A stream of questions: each stands before its passage, in every window of it."""

    def n_targets(self, indices: np.ndarray) -> None:
        """One answer in each window."""

    def question(self, document: int) -> Question:
        """What a document keeps of its question."""
        return question_of(self.about(document))

    def shown(self, document: int, tokenizer: Tokenizer) -> str:
        """The question, a line end and the passage."""
        asked = tokenizer.decode(self._part(self._first_part[document]).tolist())
        return f"{asked}\n{self.question(document).passage}"


class AnswerCollator(WordCollator):
    """The units of a passage are scored as the first and the last of an answer, beside the text as a whole for none.

    The question stands before the passage (arXiv 1810.04805). An answer that isn't whole in a window counts as none there.
    """

    @classmethod
    def shaped(cls, model_config: ModelConfig, stream: TokenStream, tokenizer: Tokenizer) -> ModelConfig:
        """`model_config` with a score for each edge of an answer."""
        return dataclasses.replace(model_config, labels=EDGES, labelled="answer", pooler=False)

    def samples(self, stream: TokenStream, length: int, seed: int) -> Questions:
        """A stream of questions."""
        end = self.tokenizer.end_of_text
        return Questions(stream, length, seed, end, stride=self.stride, has_lead=True)

    def mean_tokens(self, view: Questions) -> TokenCounts:
        """The average window's; each unit is scored."""
        return TokenCounts.full(view.tokens)

    def __call__(self, windows: list[Window], indices_b: np.ndarray) -> Batch:
        """The batch of windows; a target tells whether START, END, both or neither stand at its position."""
        arrays = laid_out(windows, self.tokenizer, self.model_config, whole=True)
        targets = [self._edges(window) for window in windows]
        targets_bk = filled(targets, arrays["positions_bk"].shape[1], IGNORED)
        return Batch.of(targets_bk=targets_bk, indices_b=indices_b, **arrays)

    def _edges(self, window: Window) -> np.ndarray:
        if window.document < 0:
            return np.zeros(0, np.int64)
        targets = np.zeros(len(window.words) + 1, np.int64)
        question, span = question_of(window.about), window.span
        is_inside = span.first <= question.first and question.last < span.end
        for edge, unit in ((START, question.first), (END, question.last)):
            targets[unit - span.first + 1 if is_inside else 0] += edge
        return targets
