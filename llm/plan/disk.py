"""How much disk a run takes."""


def checkpoint_bytes(weights: int, optimizer: int) -> int:
    """The size of one checkpoint, but for some kilobytes: the weights and the optimizer's state, as they are."""
    return weights + optimizer


def kept_checkpoints(
    max_steps: int, every_n_steps: int, keep_last: int, keep_best: bool, keep_every_n_steps: int | None
) -> int:
    """The most checkpoints that lie on the disk at a time, the one that is being written included."""
    # There are never more than when the last one is written: those before it are then kept by the same rules.
    before = [*range(every_n_steps, max_steps, every_n_steps)]
    last = min(len(before), keep_last)
    older = before[: len(before) - last]
    kept = sum(1 for step in older if keep_every_n_steps and step % keep_every_n_steps == 0)
    best = 1 if keep_best and kept < len(older) else 0
    return 1 + last + kept + best
