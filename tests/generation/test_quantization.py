"""Weights of eight bits: a trained model's loss changes by less than a hundredth, and a layer errs by its rounding alone."""

import dataclasses

import pytest
import torch
from test_packing import CONFIGS
from torch.nn import functional as F

from llm.errors import ConfigError
from llm.generation import BatchEngine, Request, Sampling, quantization, quantize
from llm.generation.quantization import (
    FEWEST_OUTPUTS,
    LARGEST,
    REDUCE_RANGE,
    SCALES_ROWS,
    _Dynamic,
    _Fbgemm,
    _gelu_tanh,
    _Int8Linear,
    _OneDnn,
)
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.layers import gelu_tanh

# Those that scale rows, where this CPU has them.
KERNELS = [_Dynamic] if not SCALES_ROWS else [_Fbgemm] if REDUCE_RANGE else [_Fbgemm, _OneDnn]
CONFIG = ModelConfig(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, context_length=64, vocab_size=61)


def text(rows, length, seed):
    """Sequences in which each token follows from the one before, four times of five."""
    generator = torch.Generator().manual_seed(seed)
    tokens_bt = torch.randint(0, 61, (rows, length), generator=generator)
    kept_bt = torch.rand((rows, length), generator=generator) < 0.8
    for t in range(1, length):
        tokens_bt[:, t] = torch.where(kept_bt[:, t], (tokens_bt[:, t - 1] * 7 + 3) % 61, tokens_bt[:, t])
    return tokens_bt


def loss(model, tokens_bt):
    logits_btv = model(tokens_bt[:, :-1])
    return F.cross_entropy(logits_btv.flatten(0, 1), tokens_bt[:, 1:].flatten())


@pytest.fixture(scope="module")
def trained():
    model = Transformer(CONFIG)
    init_weights(model, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss(model, text(16, 33, step)).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(params=[False, True], ids=["each layer rotates", "the stream is rotated"])
def rotates(request, monkeypatch):
    """Both ways in turn, whichever this CPU's is."""
    monkeypatch.setattr(quantization, "ROTATES_STREAM", request.param)
    return request.param


def copy(model):
    other = Transformer(model.config).eval()
    other.load_state_dict(model.state_dict())
    return other


@torch.no_grad()
def test_perplexity_changes_by_less_than_a_hundredth(trained, rotates):
    held_out = text(64, 33, 10_000)
    plain, whole = loss(trained, held_out), loss(quantize(copy(trained)), held_out)
    assert plain < 2.0  # it has learnt: a guess costs 4.1
    assert (whole - plain).abs() < 0.01
    assert whole != plain


@torch.no_grad()
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("outputs", [1, 40])
def test_a_layer_errs_by_no_more_than_its_rounding(outputs, kernel):
    generator = torch.Generator().manual_seed(0)
    weight_oi, bias_o = (
        torch.randn(outputs, 96, generator=generator),
        torch.randn(outputs, generator=generator),
    )
    x_bi = 3 * torch.randn(5, 96, generator=generator) + 1
    # Half a step of each input times its weight, and half a step of each weight times its input; the row's own step, of
    # 63 on a CPU whose kernel leaves out a bit.
    x_step_b1 = x_bi.abs().amax(1, keepdim=True) / LARGEST
    weight_step_o = weight_oi.abs().amax(1) / 127
    bound_bo = (
        x_step_b1 * weight_oi.abs().sum(1) + weight_step_o * (x_bi.abs() + x_step_b1).sum(1, keepdim=True)
    ) / 2 + 1e-5
    error_bo = (_Int8Linear(weight_oi, bias_o, kernel)(x_bi) - F.linear(x_bi, weight_oi, bias_o)).abs()
    assert (error_bo <= bound_bo).all()
    assert error_bo.max() > 0


@torch.no_grad()
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("inputs", [96, 768])
def test_inputs_far_above_the_others_cost_them_little(inputs, kernel):
    generator = torch.Generator().manual_seed(0)
    weight_oi, x_bi = (
        torch.randn(40, inputs, generator=generator),
        torch.randn(5, inputs, generator=generator),
    )
    x_bi[:, 7] = 50.0
    exact_bo = x_bi @ weight_oi.T
    step_b1 = x_bi.abs().amax(1, keepdim=True) / LARGEST
    straight_bo = (x_bi / step_b1).round() * step_b1 @ weight_oi.T
    rotated_bo = _Int8Linear(weight_oi, None, kernel)(x_bi)
    assert (rotated_bo - exact_bo).norm() < 0.5 * (straight_bo - exact_bo).norm()


def test_gelu_by_the_logistic_function_is_the_same():
    x = torch.cat([torch.linspace(-12, 12, 10_001), torch.tensor([-1e30, -1e4, 0.0, 1e4, 1e30])])
    torch.testing.assert_close(_gelu_tanh(x), gelu_tanh(x), atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_matrix_is_replaced_by_its_own(config, rotates):
    model = Transformer(config).eval()
    init_weights(model, seed=0)
    tokens_bt = torch.randint(0, 61, (3, 20), generator=torch.Generator().manual_seed(1))
    plain = model(tokens_bt)
    whole = quantize(copy(model))
    assert not any(isinstance(module, torch.nn.Linear) or module.training for module in whole.modules())
    # Another layer's matrix, or a missing bias, would be wrong by the logits' own size.
    assert (whole(tokens_bt) - plain).norm() < 0.1 * plain.norm()


@torch.no_grad()
@pytest.mark.skipif(not SCALES_ROWS, reason="this CPU's kernel scales inputs over all rows")
@pytest.mark.parametrize("kernel", KERNELS)
def test_no_row_of_a_layer_depends_on_the_others(kernel):
    outputs = FEWEST_OUTPUTS if kernel is _OneDnn else 40
    narrow_bi = torch.randn(5, 96) * torch.tensor([[0.0], [1e-3], [1.0], [50.0], [1e4]])
    for x_bi in (narrow_bi, torch.randn(50, 768)):
        layer = _Int8Linear(torch.randn(outputs, x_bi.shape[1]), torch.randn(outputs), kernel)
        assert torch.equal(layer(x_bi), torch.cat([layer(x_1i) for x_1i in x_bi.split(1)]))


@torch.no_grad()
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_without_a_scale_leaves_the_others_alone(kernel):
    outputs = FEWEST_OUTPUTS if kernel is _OneDnn else 40
    bias_o = torch.randn(outputs)
    layer = _Int8Linear(torch.randn(outputs, 96), bias_o, kernel)
    x_bi = torch.randn(4, 96)
    x_bi[1], x_bi[2, 5] = 0.0, torch.nan
    y_bo = layer(x_bi)
    assert torch.equal(y_bo[1], bias_o)
    assert y_bo[2].isnan().all()
    torch.testing.assert_close(y_bo[[0, 3]], layer(x_bi[[0, 3]]))


@torch.no_grad()
@pytest.mark.skipif(not SCALES_ROWS, reason="this CPU's kernel scales inputs over all rows")
@pytest.mark.parametrize("rows", [3, 16])
def test_no_text_depends_on_the_others(trained, rows, rotates):
    model = quantize(copy(trained), rows)
    requests = [
        Request(text(1, length, length)[0].tolist(), 20, Sampling(temperature=1.2), seed=length)
        for length in (3, 9, 20, 5)
    ]
    found = {request: [] for request in requests}
    for token in BatchEngine(model, rows=rows).run(requests):
        found[token.request].append(token.id)
    for request in requests:
        assert found[request] == [token.id for token in BatchEngine(model, rows=1).run([request])]


def test_it_is_for_cpus():
    with torch.device("meta"):
        model = Transformer(dataclasses.replace(CONFIG))
    with pytest.raises(ConfigError, match="for CPUs"):
        quantize(model)
