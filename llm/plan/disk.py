"""How much disk a run takes."""


def checkpoint_bytes(weights: int, optimizer: int) -> int:
    """The size of one checkpoint, but for some kilobytes: the weights and the optimizer's state, as they are."""
    return weights + optimizer


def kept_checkpoints(
    max_steps: int, every_n_steps: int, keep_last: int, keep_best: bool, keep_every_n_steps: int | None
) -> int:
    """The most checkpoints that lie on the disk at a time, the one that is being written included."""
    saves = [*range(every_n_steps, max_steps, every_n_steps), max_steps]
    last = min(len(saves), keep_last)
    older = saves[:-last]
    kept = [step for step in older if keep_every_n_steps and step % keep_every_n_steps == 0]
    best = 1 if keep_best and len(kept) < len(older) else 0
    return last + len(kept) + best + (1 if len(older) > len(kept) + best else 0)
