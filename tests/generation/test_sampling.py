"""Sampling: each filter equal to transformers', settings checked, draws distributed as they should be."""

import math

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llm.bounds import LEAST_PENALTY, MOST_PENALTY
from llm.errors import ConfigError, TrainingError
from llm.generation import Sampling
from llm.generation.sampling import drawn_from

LOGITS = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)) * 3
TOKENS = torch.randint(0, 50, (8, 12), generator=torch.Generator().manual_seed(1))

SETTINGS = [
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_k": 500},
    {"top_p": 0.9},
    {"top_p": 0.01},
    {"min_p": 0.1},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"temperature": 1.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.1},
]


def theirs(temperature=1.0, top_k=None, top_p=None, min_p=None, repetition_penalty=None):
    scores = LOGITS.clone()
    if repetition_penalty:
        scores = RepetitionPenaltyLogitsProcessor(repetition_penalty)(TOKENS, scores)
    scores = TemperatureLogitsWarper(temperature)(TOKENS, scores)
    warpers = ((TopKLogitsWarper, top_k), (TopPLogitsWarper, top_p), (MinPLogitsWarper, min_p))
    for warper, value in warpers:
        scores = scores if value is None else warper(value)(TOKENS, scores)
    return scores


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_equal_those_of_transformers(settings):
    sampling = Sampling(**settings)
    torch.testing.assert_close(sampling.filter(sampling.penalise(LOGITS, TOKENS)), theirs(**settings))


def test_a_draw_follows_the_filtered_distribution():
    sampling = Sampling(temperature=0.8, top_k=4)
    generator = torch.Generator().manual_seed(5)
    logits = LOGITS[:1].expand(40_000, -1)
    counts = sampling.draw(logits, TOKENS[:1].expand(40_000, -1), [generator]).bincount(minlength=50)
    expected = theirs(temperature=0.8, top_k=4)[0].softmax(-1)
    assert (counts / 40_000 - expected).abs().max() < 0.01
    assert (counts[expected == 0] == 0).all()


def test_a_row_with_its_own_generator_is_drawn_as_it_is_alone():
    generators = [[torch.Generator().manual_seed(seed) for seed in range(8)] for _ in range(2)]
    together = Sampling().draw(LOGITS, TOKENS, generators[0])
    alone = [
        Sampling().draw(LOGITS[i : i + 1], TOKENS[i : i + 1], generators[1][i : i + 1]) for i in range(8)
    ]
    assert together.tolist() == torch.cat(alone).tolist()


def test_draws_of_a_large_vocabulary_are_independent_and_never_of_what_is_left_out():
    probability_v = torch.rand(50_257, generator=torch.Generator().manual_seed(0)) ** 8
    probability_v[::2] = 0
    probability_v[:20_000] = probability_v[-20_000:] = 0
    drawn = drawn_from(
        probability_v.expand(500, -1) / probability_v.sum(), [torch.Generator().manual_seed(1)]
    )
    assert (probability_v[drawn] > 0).all()
    share = probability_v.cumsum(0)[drawn] / probability_v.sum()  # as likely to be anything between 0 and 1
    assert abs(share.mean() - 0.5) < 0.05
    assert abs((share < 0.25).double().mean() - 0.25) < 0.06
    assert len(set(drawn.tolist())) > 300


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-6, 1e-300])
def test_without_temperature_the_most_likely_is_drawn(temperature):
    drawn = Sampling(temperature=temperature).draw(LOGITS, TOKENS, [torch.Generator()])
    assert drawn.tolist() == LOGITS.argmax(-1).tolist()


def test_greedy_takes_the_first_of_the_largest():
    logits = torch.cat([LOGITS, torch.tensor([0.0, 2.0, -1.0, 2.0, 1.0]).repeat(10)[None]])
    drawn = Sampling(temperature=0).draw(logits, TOKENS[:1], [torch.Generator()])
    assert drawn.tolist() == [*LOGITS.argmax(-1).tolist(), 1]


def test_greedy_heeds_the_repetition_penalty():
    tokens = LOGITS.argmax(-1, keepdim=True)
    drawn = Sampling(temperature=0, repetition_penalty=1e6).draw(LOGITS, tokens, [torch.Generator()])
    assert (drawn != tokens[:, 0]).all()


@pytest.mark.parametrize("temperature", [2e-5, 1e4])
def test_extreme_temperatures_stay_finite(temperature):
    drawn = Sampling(temperature=temperature, top_p=0.9).draw(LOGITS * 100, TOKENS, [torch.Generator()])
    assert ((drawn >= 0) & (drawn < 50)).all()


@pytest.mark.parametrize("penalty", [LEAST_PENALTY, MOST_PENALTY])
def test_extreme_penalties_stay_finite(penalty):
    assert Sampling(repetition_penalty=penalty).penalise(LOGITS * 100, TOKENS).isfinite().all()


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("temperature", [-0.1, math.nan, math.inf, None, "hot"]),
        ("top_k", [0, -1, 2.5, math.nan]),
        ("top_p", [0, -0.5, 1.5, math.nan, True]),
        ("min_p", [-0.1, 1.1, math.inf]),
        ("repetition_penalty", [0, -2, math.nan, 1e-40, 5e-324, 1e40]),
    ],
)
def test_wrong_settings_are_refused_by_name(key, values):
    for value in values:
        with pytest.raises(ConfigError, match=key):
            Sampling(**{key: value})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_an_error(value, temperature):
    logits = LOGITS.clone()
    logits[3, 7] = value
    with pytest.raises(TrainingError, match="not finite"):
        Sampling(temperature=temperature).draw(logits, TOKENS, [torch.Generator()])
