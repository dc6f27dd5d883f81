"""The best stretch over windows, by all there are."""

import itertools

import numpy as np
import pytest
import torch

from llm.data.collators.words import Span, Window
from llm.generation.extracting import best_stretch


def window(first, n):
    return Window(
        0, np.zeros(0, np.int64), [np.zeros(1, np.int64)] * n, Span(first, first + n, first, first + n), b""
    )


def test_it_is_the_one_of_the_highest_score_in_any_window():
    for seed in range(50):
        random = torch.Generator().manual_seed(seed)
        windows = [window(0, 6), window(4, 5)]
        scores = [torch.randn(len(one.words) + 1, 2, generator=random) for one in windows]
        ways = [
            (float(part[1 + first, 0] + part[1 + last, 1]), one.span.first + first, one.span.first + last)
            for one, part in zip(windows, scores, strict=True)
            for first, last in itertools.product(range(len(one.words)), repeat=2)
            if first <= last < first + 3
        ]
        best, first, last = max(ways)
        found = best_stretch(windows, scores, 3)
        assert (found.first, found.last) == (first, last)
        assert found.margin == pytest.approx(best - min(float(part[0].sum()) for part in scores), abs=1e-5)
