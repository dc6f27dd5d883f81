"""Batches of the shapes that training has, of whose values nothing depends."""

from collections.abc import Iterable, Iterator
from itertools import repeat

import torch
from torch import Tensor

from llm.data.collators.base import Batch, SampleCost, TokenCounts
from llm.model import ModelConfig


def whole_context(model_config: ModelConfig) -> TokenCounts:
    """What a sample takes that fills the context, and the source's where there is one."""
    length = float(model_config.context_length)
    return TokenCounts(
        length, length, length, length if model_config.architecture == "encoder_decoder" else 0.0
    )


def blanks(sample_cost: SampleCost, size: int) -> Iterator[Batch]:
    """Again and again a batch of the `size` longest samples that cost so much, all zeros."""
    longest, extra_fields = sample_cost.longest, sample_cost.extra_fields
    # A preference has two rows.
    rows = 2 if "reference_b2" in extra_fields else 1
    written, scored, read = (
        round(length / rows) for length in (longest.inputs, longest.targets, longest.source)
    )

    def ids(length: int) -> Tensor:
        return torch.zeros(size * rows, length, dtype=torch.long)

    return repeat(
        Batch(
            tokens_bt=ids(written),
            targets_bk=ids(scored),
            indices_b=torch.zeros(size, dtype=torch.long),
            documents_bt=ids(written) if "documents_bt" in extra_fields else None,
            positions_bk=None if scored == written else ids(scored),
            source_bs=ids(read) if read else None,
            source_documents_bs=ids(read) if read and "source_documents_bs" in extra_fields else None,
            reference_b2=torch.zeros(size, 2) if rows == 2 else None,
        )
    )


def blanks_like(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches of the shapes of others, all zeros."""
    for batch in batches:
        yield Batch(
            *(None if t is None else torch.zeros(t.shape, dtype=t.dtype) for t in batch)  # type: ignore[arg-type]
        )
