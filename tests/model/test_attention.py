"""Attention written out gives what torch's kernel gives, and is taken only where it is faster."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention

from llm.model import attention, block
from llm.model.attention import composed_attention, composes_faster
from llm.model.config import ModelConfig
from llm.model.init import init_weights
from llm.model.mask import PADDING, AttentionMask, attention_kwargs
from llm.model.transformer import Transformer


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


DOCUMENTS_BT = torch.tensor([[0] * 10 + [1] * 14, [0] * 15 + [PADDING] * 9])
PREFIX_B = torch.tensor([3, 12])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 4, 40])
@pytest.mark.parametrize("documents_bt", [None, DOCUMENTS_BT], ids=["one document", "documents"])
@pytest.mark.parametrize("prefix_b", [None, PREFIX_B], ids=["no prefix", "prefixes"])
def test_a_sparse_mask_says_what_the_dense_one_says(causal, window, documents_bt, prefix_b):
    query, key, value = (x.detach() for x in inputs(3, 24, 24, torch.float32))
    mixed = []
    for sparse in (False, True):
        mask = AttentionMask(causal, window, documents_bt, prefix_b=prefix_b)
        kwargs = attention_kwargs(mask, 24, 24, query.device, sparse=sparse)
        kernel = flex_attention if "block_mask" in kwargs else F.scaled_dot_product_attention
        is_masked = window == 4 or documents_bt is not None or (causal and prefix_b is not None)
        assert ("block_mask" in kwargs) == (sparse and is_masked)
        mixed.append(kernel(query, key, value, enable_gqa=True, **kwargs))
    torch.testing.assert_close(mixed[1], mixed[0], rtol=0, atol=2e-6)


def test_documents_are_skipped_whole_where_the_mask_is_sparse():
    documents_bt = torch.arange(1024)[None] // 256
    mask = AttentionMask(causal=True, documents_bs=documents_bt)
    blocks = attention_kwargs(mask, 1024, 1024, documents_bt.device, sparse=True)["block_mask"]
    # Four documents of two blocks: three of the 64 squares of 128 x 128 are seen in each.
    assert blocks.to_dense().sum() == 4 * 3


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("architecture", ["decoder", "encoder"])
def test_a_compiled_model_whose_mask_is_sparse_scores_alike(architecture, monkeypatch):
    config = ModelConfig(
        architecture=architecture,
        d_model=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        context_length=24,
        vocab_size=19,
    )
    model = Transformer(config)
    init_weights(model, seed=0)
    tokens_bt = torch.randint(19, (2, 24), generator=torch.Generator().manual_seed(0))
    dense_btv = model(tokens_bt, documents_bt=DOCUMENTS_BT)
    taken = []
    monkeypatch.setattr(block, "works_sparse", lambda device: taken.append(device) or True)
    sparse_btv = torch.compile(model)(tokens_bt, documents_bt=DOCUMENTS_BT)
    assert taken
    torch.testing.assert_close(sparse_btv, dense_btv, rtol=0, atol=1e-5)
