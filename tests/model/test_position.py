"""Positions against their definitions, written out the slow way."""

import math

import pytest
import torch

from llm.model import ModelConfig, RopeScaling
from llm.model.position import Rotary, SinusoidalPositions, rotate, stretch

CONFIG = ModelConfig(d_model=16, n_heads=2, context_length=32, vocab_size=5)


def test_rotation_is_multiplication_by_a_complex_unit():
    x_bthe = torch.randn(1, 32, 2, 8, dtype=torch.float64)
    turned = rotate(x_bthe, Rotary(CONFIG).double()(0, 32))
    pairs = torch.complex(x_bthe[..., :4], x_bthe[..., 4:])
    for position in range(32):
        for index in range(4):
            angle = position * 10000 ** (-2 * index / 8)
            wanted = pairs[:, position, :, index] * complex(math.cos(angle), math.sin(angle))
            got = torch.complex(turned[:, position, :, index], turned[:, position, :, index + 4])
            assert torch.allclose(got, wanted, atol=1e-5)


def test_scores_depend_on_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    rotary = Rotary(CONFIG).double()
    near = rotate(query, rotary(9, 1)) @ rotate(key, rotary(4, 1)).mT
    far = rotate(query, rotary(30, 1)) @ rotate(key, rotary(25, 1)).mT
    assert torch.allclose(near, far, atol=1e-5)


@pytest.mark.parametrize(("wavelength", "wanted"), [(100.0, 100.0), (10000.0, 80000.0)])
def test_short_waves_stay_and_long_ones_are_stretched(wavelength, wanted):
    frequency = torch.tensor([2 * math.pi / wavelength], dtype=torch.float64)
    stretched = stretch(frequency, RopeScaling(factor=8.0, original_context_length=8192))
    assert (2 * math.pi / stretched).item() == pytest.approx(wanted)


def test_between_them_frequencies_are_interpolated():
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context_length=8192)
    frequency = torch.tensor(
        [2 * math.pi * 2.5 / 8192], dtype=torch.float64
    )  # 2.5 turns: half way from 1 to 4
    assert (stretch(frequency, scaling) / frequency).item() == pytest.approx((1 + 1 / 8) / 2)


def test_sinusoids_by_their_formula():
    table = SinusoidalPositions(CONFIG)(torch.zeros(1, 32, 16), 0)[0]
    for position in (0, 1, 31):
        for index in range(8):
            angle = position / 10000 ** (2 * index / 16)
            assert table[position, index].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 8 + index].item() == pytest.approx(math.cos(angle), abs=1e-5)
