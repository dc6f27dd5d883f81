"""Matrices in 8 and 4 bits: their codes beside another library's, the product and its gradient, and adapters beside them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llm.adapter import Lora, frozen_bytes, initial_weights, merged, n_values
from llm.adapter.frozen import BLOCK, KINDS, LEVELS, Coded, Frozen
from llm.errors import ConfigError
from llm.model import ModelConfig, Transformer, init_weights

BITS = tuple(KINDS)
SHAPE = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64, "vocab_size": 264, "context_length": 32}


def matrix(rows=24, columns=128, seed=0):
    return 0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_nf4_has_the_codes_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    theirs, state = functional.quantize_4bit(matrix(), quant_type="nf4", blocksize=BLOCK)
    ours = KINDS["nf4"].encode(matrix())
    assert torch.equal(ours.codes.flatten(), theirs.flatten())
    assert torch.equal(ours.scales.flatten(), state.absmax.flatten())
    decoded = functional.dequantize_4bit(theirs, state)
    torch.testing.assert_close(KINDS["nf4"].decode(ours, torch.float32), decoded, rtol=1e-6, atol=1e-7)


def test_the_levels_of_nf4_are_the_papers():
    # Appendix E of arXiv 2305.14314, to about four places.
    paper = [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0]
    paper += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1]
    assert pytest.approx(paper, abs=1e-4) == LEVELS


def test_each_weight_becomes_the_nearest_level_of_its_block():
    coded = KINDS["nf4"].encode(matrix())
    values = (matrix().reshape(-1, BLOCK) / coded.scales)[..., None]
    nearest = torch.tensor(LEVELS)[(values - torch.tensor(LEVELS)).abs().argmin(-1)] * coded.scales
    assert torch.equal(KINDS["nf4"].decode(coded, torch.float32), nearest.reshape(24, 128))


def test_int8_is_off_by_half_a_step_at_most():
    coded = KINDS["int8"].encode(matrix())
    assert coded.codes.abs().amax(1).tolist() == [127] * 24
    error = (KINDS["int8"].decode(coded, torch.float32) - matrix()).abs()
    assert (error <= coded.scales * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [48, 128])
def test_some_of_the_columns_are_decoded_as_in_the_whole(bits, width):
    coded = KINDS[bits].encode(matrix(24, width))
    wanted = KINDS[bits].decode(coded, torch.float32).chunk(2, dim=1)
    for share, codes in enumerate(coded.codes.chunk(2, dim=1)):
        part = KINDS[bits].part(Coded(codes, coded.scales), share, width)
        assert torch.equal(KINDS[bits].decode(part, torch.float32), wanted[share])


@pytest.mark.parametrize("bits", BITS)
def test_a_matrix_of_zeros_stays_one(bits):
    assert not KINDS[bits].decode(KINDS[bits].encode(torch.zeros(2, 64)), torch.float32).any()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_the_product_and_its_gradient_are_those_of_the_decoded_matrix(bits, autocast):
    base = nn.Linear(128, 24)
    layer = Frozen(base, bits)
    plain = KINDS[bits].decode(KINDS[bits].encode(base.weight.detach()), torch.float32)
    x, y = (matrix(5, 128, 3).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, wanted = layer(x), F.linear(y, plain, base.bias)
    assert found.dtype == wanted.dtype
    found.float().square().sum().backward()
    wanted.float().square().sum().backward()
    near = {"rtol": 2e-2, "atol": 2e-3} if autocast else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found, wanted, **near)
    torch.testing.assert_close(x.grad, y.grad, **near)


@pytest.mark.parametrize("bits", BITS)
def test_compiled_it_is_one_graph_with_the_same_gradient(bits):
    layer = Frozen(nn.Linear(128, 24), bits)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x, y = (matrix(5, 128, 3).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = compiled(x), layer(y)
    found.float().square().sum().backward()
    wanted.float().square().sum().backward()
    assert torch.equal(found, wanted)
    assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize(("bits", "width"), [("int8", 8 + 32 / 128), ("nf4", 4 + 32 / BLOCK)])
def test_a_weight_takes_so_many_bits(bits, width):
    layer = Frozen(nn.Linear(128, 24), bits)
    assert frozen_bytes(layer) == (24 * 128 * width / 8, 24 * 128 * 4)
    saved = sum(t.numel() * t.element_size() for t in layer.state_dict().values()) - 24 * 4
    assert saved == frozen_bytes(layer)[0]
    assert sum(n_values(*named) for named in layer.named_parameters()) == 24 * 128 + 24


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", ["all", ["query"]], ids=["all", "some"])
@pytest.mark.parametrize("bits", BITS)
def test_folded_in_is_as_beside(bits, targets, dora):
    base = Transformer(ModelConfig(**SHAPE)).eval()
    init_weights(base, 0)
    lora = Lora(rank=4, targets=targets, dora=dora, quantize=bits)
    with torch.device("meta"):
        net = Transformer(base.config).eval()
    lora.attach(net)
    assert sum(isinstance(layer, Frozen) for layer in net.modules()) == 2 * (4 + 3)
    net = net.to_empty(device="cpu")
    net.load_state_dict(initial_weights(net, base.state_dict(), 0), strict=False)
    tokens = torch.randint(0, 264, (2, 20), generator=torch.Generator().manual_seed(3))
    alone = Transformer(base.config).eval()
    alone.load_state_dict(merged(net.state_dict(), lora), strict=False)
    # Fresh adapters change nothing, and rounding little.
    torch.testing.assert_close(net(tokens), alone(tokens), rtol=0, atol=1e-5)
    fresh = net(tokens)
    assert (
        0 < (fresh - base(tokens)).abs().max() / base(tokens).abs().max() < (0.02 if bits == "int8" else 0.3)
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("lora_b"):
                parameter += 0.1
    alone.load_state_dict(merged(net.state_dict(), lora), strict=False)
    torch.testing.assert_close(net(tokens), alone(tokens), rtol=1e-5, atol=1e-5)
    assert (net(tokens) - fresh).abs().max() > 1e-3


def test_what_can_not_be_kept_in_few_bits_is_refused():
    with pytest.raises(ConfigError, match=r"query is .*take adapter.quantize=int8"):
        KINDS["nf4"].check("query", torch.empty(3, 32))
    with pytest.raises(ConfigError, match=r"adapter\.quantize=int4: it is int8 or nf4"):
        Lora(quantize="int4")
