"""What a precision's name says of dtypes."""

import pytest
import torch

from llm.train.precision import compute_dtype, fsdp_policy, parameter_dtype


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("bf16-mixed", torch.bfloat16),
        ("16-mixed", torch.float16),
        ("32-true", torch.float32),
        ("64", torch.float64),
    ],
)
def test_precision_names(precision, dtype):
    assert compute_dtype(precision) == dtype


@pytest.mark.parametrize(
    ("precision", "width"),
    [("bf16-true", 2), ("bf16-mixed", 4), ("bf16", 4), ("32-true", 4), ("64-true", 8), ("64", 8)],
)
def test_weights_are_as_wide_as_the_precision_keeps_them(precision, width):
    assert parameter_dtype(precision).itemsize == width


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_fsdp_gathers_in_half_precision_and_adds_gradients_up_in_whole(precision):
    policy = fsdp_policy(precision)
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true"])
def test_fsdp_leaves_weights_of_one_dtype_as_they_are(precision):
    assert fsdp_policy(precision).param_dtype is None
