"""Schedules against closed forms and transformers' own."""

import math

import pytest
import torch
import transformers

from llm.errors import ConfigError
from llm.train import schedules

TOTAL, WARMUP = 200, 20


def huggingface(name: str, **arguments: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = getattr(transformers, name)(optimizer, num_warmup_steps=WARMUP, **arguments)
    return [scheduler.lr_lambdas[0](step) for step in range(TOTAL)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            schedules.cosine(TOTAL, warmup_steps=WARMUP, final_lr_ratio=0.0),
            huggingface("get_cosine_schedule_with_warmup", num_training_steps=TOTAL),
        ),
        (
            schedules.cosine(TOTAL, warmup_steps=WARMUP, final_lr_ratio=0.2),
            huggingface(
                "get_cosine_with_min_lr_schedule_with_warmup", num_training_steps=TOTAL, min_lr_rate=0.2
            ),
        ),
        (
            schedules.linear(TOTAL, warmup_steps=WARMUP),
            huggingface("get_linear_schedule_with_warmup", num_training_steps=TOTAL),
        ),
        (schedules.inverse_sqrt(TOTAL, warmup_steps=WARMUP), huggingface("get_inverse_sqrt_schedule")),
        (
            schedules.wsd(TOTAL, warmup_steps=WARMUP, decay_ratio=0.3, decay_shape="linear"),
            huggingface(
                "get_wsd_schedule", num_training_steps=TOTAL, num_decay_steps=60, decay_type="linear"
            ),
        ),
    ],
    ids=["cosine", "cosine_min", "linear", "inverse_sqrt", "wsd"],
)
def test_decay_is_that_of_transformers(ours, theirs):
    assert [ours(step) for step in range(WARMUP, TOTAL)] == pytest.approx(theirs[WARMUP:], abs=1e-12)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "inverse_sqrt"])
def test_warmup_is_a_line_that_starts_above_zero_and_ends_at_one(name):
    schedule = getattr(schedules, name)(TOTAL, warmup_steps=4)
    assert [schedule(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(schedule(step) for step in range(TOTAL)) == 1


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "inverse_sqrt"])
@pytest.mark.parametrize("warmup", [0, 1, 8, None])
def test_every_rate_of_a_short_run_is_between_0_and_1(name, warmup):
    schedule = getattr(schedules, name)(10, warmup_steps=warmup)
    assert all(0 < schedule(step) <= 1 for step in range(10))
    assert 0 <= schedule(10) <= 1


def test_known_points():
    cosine = schedules.cosine(100, warmup_steps=0, final_lr_ratio=0.1)
    assert [cosine(0), cosine(50), cosine(100), cosine(1000)] == pytest.approx([1, 0.55, 0.1, 0.1])
    wsd = schedules.wsd(100, warmup_steps=10, decay_ratio=0.2, final_lr_ratio=0.5)
    assert [wsd(10), wsd(80), wsd(85), wsd(100)] == pytest.approx([1, 1, 0.75, 0.5])
    inverse_sqrt = schedules.inverse_sqrt(100, warmup_steps=0)
    assert [inverse_sqrt(0), inverse_sqrt(3)] == pytest.approx([1, 0.5])
    assert math.isclose(schedules.linear(100, warmup_steps=0, final_lr_ratio=0.5)(50), 0.75)


def test_default_warmup_fits_any_run():
    assert schedules.warmup_of(20, None) == 1
    assert schedules.warmup_of(600, None) == 30
    assert schedules.warmup_of(1_000_000, None) == 2000


def test_wsd_without_decay_is_constant():
    schedule = schedules.wsd(10, warmup_steps=0, decay_ratio=0.0)
    assert [schedule(step) for step in range(10)] == [1] * 10


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "inverse_sqrt"])
@pytest.mark.parametrize("warmup", [-1, 11])
def test_warmup_that_does_not_fit_is_refused(name, warmup):
    with pytest.raises(ConfigError, match=rf"schedule.warmup_steps={warmup}.*10 steps"):
        getattr(schedules, name)(10, warmup_steps=warmup)


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_values_out_of_range_are_refused(ratio):
    with pytest.raises(ConfigError, match="final_lr_ratio"):
        schedules.cosine(10, final_lr_ratio=ratio)
    with pytest.raises(ConfigError, match="decay_ratio"):
        schedules.wsd(10, decay_ratio=ratio)
    with pytest.raises(ConfigError, match=r"0 to 0\.5 of the run"):
        schedules.wsd(10, warmup_steps=5, decay_ratio=0.6)
