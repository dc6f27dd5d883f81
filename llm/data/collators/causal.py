"""The next token of every token: the collator of plain text.

Shapes: n samples, b batch, t time, k targets in a row.
"""

from typing import ClassVar

import numpy as np

from llm.data.collators.base import Batch, ScoredBy, Setting, TokenCounts, WindowCollator, document_numbers
from llm.data.sampling.windows import IGNORED


class CausalCollator(WindowCollator):
    """Each token's target is the token after it.

    Args:
        setting: the run's tokenizer.
        within_documents: whether attention stays within a document; else a token sees all that stands before it.
    """

    scored_by: ClassVar[ScoredBy] = "tokens"

    def __init__(self, setting: Setting, *, within_documents: bool = False) -> None:
        self.within_documents = within_documents
        self.end_of_text = setting.tokenizer.end_of_text

    def window_tokens(self, length: int) -> TokenCounts:
        """Every token of a window is scored."""
        return TokenCounts.full(length)

    @property
    def extra_fields(self) -> tuple[str, ...]:
        """Documents, where attention stays within them."""
        return ("documents_bt",) if self.within_documents else ()

    def __call__(self, windows: np.ndarray, indices_b: np.ndarray) -> Batch:
        """The batch, both tensors views of `windows` where nothing is past the end of the text."""
        tokens_bt = windows[:, :-1]
        if (windows[:, -1] == IGNORED).any():
            tokens_bt = np.where(tokens_bt == IGNORED, 0, tokens_bt)
        arrays = {"tokens_bt": tokens_bt, "targets_bk": windows[:, 1:], "indices_b": indices_b}
        if self.within_documents:
            arrays["documents_bt"] = document_numbers(tokens_bt, self.end_of_text)
        return Batch.of(**arrays)
