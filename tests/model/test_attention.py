"""Attention written out gives what torch's kernel gives, and is taken only where it is faster."""

import pytest
import torch
import torch.nn.functional as F

from llm.model import attention
from llm.model.attention import composed_attention, composes_faster


def inputs(heads, t, s, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 6, t, 8), (2, heads, s, 8), (2, heads, s, 8)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize("heads", [6, 3, 1])
@pytest.mark.parametrize("mask", ["none", "causal", "causal in blocks", "given"])
def test_it_equals_the_kernel_with_its_gradients(heads, mask, monkeypatch):
    if mask == "causal in blocks":
        monkeypatch.setattr(attention, "CAUSAL_BLOCK", 3)
    t, s = (5, 9) if mask == "given" else (7, 7)
    how = {"none": {}, "given": None}.get(mask, {"is_causal": True})
    if how is None:
        how = {"attn_mask": torch.ones(t, s, dtype=torch.bool).tril(s - t)}
    ours, theirs = inputs(heads, t, s, torch.float32), inputs(heads, t, s, torch.float32)
    out = composed_attention(*ours, **how)
    expected = F.scaled_dot_product_attention(*theirs, **how, enable_gqa=True)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=2e-5)


def test_in_bfloat16_it_errs_by_the_rounding_of_its_scores_alone():
    exact_inputs, rounded = inputs(3, 64, 64), inputs(3, 64, 64, torch.bfloat16)
    exact = F.scaled_dot_product_attention(*exact_inputs, is_causal=True, enable_gqa=True)
    ours = composed_attention(*rounded, is_causal=True)
    assert ours.dtype is torch.bfloat16
    query, key, value = (x.detach() for x in exact_inputs)
    scores = query.reshape(2, 3, 128, 8) @ key.mT * 8**-0.5
    # bfloat16 keeps 8 bits: an input, a score and an output are each off by 2^-9 of their size at most, and what the
    # scores of one softmax are off by changes its weights by twice as much.
    half_ulp = 2.0**-9
    bound = (2 * 3 * scores.abs().max() + 3) * half_ulp * value.abs().max()
    assert (ours - exact).abs().max() <= bound


def test_several_queries_take_it_under_the_compiler_alone(monkeypatch):
    query, key, _ = inputs(3, 8, 8, torch.bfloat16)
    assert not composes_faster(query, key)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert composes_faster(query, key)
    assert not composes_faster(query.float(), key)
    long = torch.empty(2, 3, attention.LONGEST_COMPOSED + 1, 8, dtype=torch.bfloat16)
    assert not composes_faster(query, long)
