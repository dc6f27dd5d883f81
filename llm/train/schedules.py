"""Learning-rate schedules: pure functions from the optimizer step, counted from 0, to the rate's multiplier.

Each warms up in a straight line, from `1 / (warmup_steps + 1)` at step 0, so that no step is wasted on a rate of
zero, to 1 at step `warmup_steps`; then it decays until `total_steps`, and keeps its last value after that. Where
`warmup_steps` is null it is 5% of the run, 2,000 steps at most.
"""

import math
from collections.abc import Callable
from typing import Literal

from llm.bounds import Share, Whole
from llm.errors import ConfigError

Schedule = Callable[[int], float]

WARMUP_SHARE = 20
LONGEST_DEFAULT_WARMUP = 2000


def cosine(total_steps: int, *, warmup_steps: Whole | None = None, final_lr_ratio: Share = 0.1) -> Schedule:
    """Half a cosine from 1 down to `final_lr_ratio` (SGDR, arXiv 1608.03983, without restarts).

    Raises:
        ConfigError: the warm-up is longer than the run, or a value is out of its range.
    """
    check_ratio(final_lr_ratio)
    warmup = warmup_of(total_steps, warmup_steps)

    def decay(step: int) -> float:
        wave = (1 + math.cos(math.pi * progress(step, warmup, total_steps))) / 2
        return final_lr_ratio + (1 - final_lr_ratio) * wave

    return with_warmup(warmup, decay)


def linear(total_steps: int, *, warmup_steps: Whole | None = None, final_lr_ratio: Share = 0.0) -> Schedule:
    """A straight line from 1 down to `final_lr_ratio`.

    Raises:
        ConfigError: the warm-up is longer than the run, or a value is out of its range.
    """
    check_ratio(final_lr_ratio)
    warmup = warmup_of(total_steps, warmup_steps)
    return with_warmup(warmup, lambda step: 1 - (1 - final_lr_ratio) * progress(step, warmup, total_steps))


def wsd(
    total_steps: int,
    *,
    warmup_steps: Whole | None = None,
    decay_ratio: Share = 0.2,
    decay_shape: Literal["sqrt", "linear"] = "sqrt",
    final_lr_ratio: Share = 0.0,
) -> Schedule:
    """Warm-up, a constant rate, and a decay over the last `decay_ratio` of the run.

    The constant part can be prolonged at will (MiniCPM, arXiv 2404.06395); decay by `1 - sqrt` beats the straight
    line (Hägele et al., arXiv 2405.18392).

    Raises:
        ConfigError: warm-up and decay don't fit into the run, or a value is out of its range.
    """
    check_ratio(final_lr_ratio)
    warmup = warmup_of(total_steps, warmup_steps)
    decay_start = total_steps - round(decay_ratio * total_steps)
    if not 0 <= decay_ratio <= 1 or decay_start < warmup:
        raise ConfigError(
            f"schedule.decay_ratio={decay_ratio}: with a warm-up of {warmup} of {total_steps} steps the decay can "
            f"have 0 to {(total_steps - warmup) / total_steps:.3g} of the run."
        )
    power = 0.5 if decay_shape == "sqrt" else 1.0

    def decay(step: int) -> float:
        return 1 - (1 - final_lr_ratio) * progress(step, decay_start, total_steps) ** power

    return with_warmup(warmup, decay)


def inverse_sqrt(total_steps: int, *, warmup_steps: Whole | None = None) -> Schedule:
    """After the warm-up `sqrt(warmup_steps / step)` (the Transformer, arXiv 1706.03762; T5, arXiv 1910.10683).

    Without a warm-up it is `1 / sqrt(step + 1)`. It doesn't depend on the run's length, so a run can be prolonged
    at will once `warmup_steps` is given.

    Raises:
        ConfigError: the warm-up is longer than the run.
    """
    warmup = warmup_of(total_steps, warmup_steps)
    scale = max(warmup, 1)
    return with_warmup(warmup, lambda step: math.sqrt(scale / (step - warmup + scale)))


def warmup_of(total_steps: int, warmup_steps: int | None) -> int:
    """The warm-up's length in steps.

    Raises:
        ConfigError: it is negative or longer than the run.
    """
    if warmup_steps is None:
        return min(total_steps // WARMUP_SHARE, LONGEST_DEFAULT_WARMUP)
    if not 0 <= warmup_steps <= total_steps:
        raise ConfigError(
            f"schedule.warmup_steps={warmup_steps}: the run has {total_steps} steps, and the warm-up must be from 0 "
            "to that. Set schedule.warmup_steps=null for 5% of the run, or raise trainer.max_steps."
        )
    return warmup_steps


def check_ratio(final_lr_ratio: float) -> None:
    """Refuse a last rate outside the range from 0 to the peak.

    Raises:
        ConfigError: it is.
    """
    if not 0 <= final_lr_ratio <= 1:
        raise ConfigError(
            f"schedule.final_lr_ratio={final_lr_ratio}: it is a share of the peak, from 0 to 1."
        )


def progress(step: int, start: int, end: int) -> float:
    """How far `step` is from `start` to `end`: 0 before, 1 after."""
    return min(max(step - start, 0) / max(end - start, 1), 1.0)


def with_warmup(warmup: int, decay: Schedule) -> Schedule:
    """`decay`, preceded by a straight line up to 1."""
    return lambda step: (step + 1) / (warmup + 1) if step < warmup else decay(step)
