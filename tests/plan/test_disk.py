"""How many checkpoints lie on the disk, against what the retention really keeps."""

import itertools

import pytest

from llm.plan import kept_checkpoints
from llm.train import checkpoint


def most_at_a_time(root, max_steps, every, keep_last, keep_best, keep_every):
    """The most folders while every step is saved in turn, the first being the best."""
    most = 0
    for step in [*range(every, max_steps, every), max_steps]:
        (root / checkpoint.folder_name(step)).mkdir()
        most = max(most, len(checkpoint.folders(root)))
        best = every if keep_best else None
        for folder in checkpoint.expendable(root, keep_last, keep_every, best):
            folder.rmdir()
    return most


CASES = itertools.product((5, 40, 41), (10,), (1, 2), (False, True), (None, 20))


@pytest.mark.parametrize(("max_steps", "every", "keep_last", "keep_best", "keep_every"), CASES)
def test_as_many_as_the_retention_leaves(tmp_path, max_steps, every, keep_last, keep_best, keep_every):
    found = most_at_a_time(tmp_path, max_steps, min(every, max_steps), keep_last, keep_best, keep_every)
    assert kept_checkpoints(max_steps, every, keep_last, keep_best, keep_every) == found
