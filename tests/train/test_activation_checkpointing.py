import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llm.model import ModelConfig, Transformer, init_weights
from llm.plan.ledger import Ledger
from llm.train.activation_checkpointing import apply_activation_checkpointing

CONFIG = ModelConfig(
    d_model=32, n_layers=4, n_heads=2, d_ff=64, context_length=16, vocab_size=16, dropout=0.1
)
TOKENS_BT = torch.arange(64).view(4, 16) % 16


def model(which, config=CONFIG):
    net = Transformer(config)
    init_weights(net, 0)
    apply_activation_checkpointing(net, which)
    return net


def gradients(net, score):
    torch.manual_seed(3)
    loss = score(net(TOKENS_BT).flatten(0, 1), TOKENS_BT.flatten())
    loss.backward()
    return loss.item(), {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("which", [1, 2, "selective"])
def test_gradients_are_the_same_dropout_included(which):
    loss, expected = gradients(model(None), torch.nn.functional.cross_entropy)
    again, found = gradients(model(which), torch.nn.functional.cross_entropy)
    assert again == loss
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def kept_bytes(net):
    """What lives behind a forward pass and is no weight."""
    with Ledger() as ledger:
        hidden_btd = net.hidden_states(TOKENS_BT)
        assert hidden_btd.requires_grad
        return ledger.live.total


def test_less_is_kept_the_more_is_computed_again():
    kept = [kept_bytes(model(which)) for which in (None, 2, 1)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 3 * kept[2]


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return function(*args, **(kwargs or {}))


def test_selective_computes_no_product_again():
    counts = {}
    for which in (None, "selective", 1):
        with Products() as products:
            gradients(model(which), torch.nn.functional.cross_entropy)
        counts[which] = products.count
    assert counts[None] == counts["selective"] < counts[1]


# Of the two, "selective" asks more of the compiler, which hears from a function of ours what to keep; to make code of
# either's graphs takes it half a minute.
@pytest.mark.parametrize(
    ("which", "backend"),
    [
        ("selective", "aot_eager"),
        pytest.param("selective", "inductor", marks=pytest.mark.slow),
        pytest.param(1, "inductor", marks=pytest.mark.slow),
    ],
)
def test_it_compiles(which, backend):
    two_layers = dataclasses.replace(CONFIG, n_layers=2)
    net = model(which, two_layers).eval()
    plain = model(None, two_layers).eval()
    score = torch.compile(lambda net, x: net(x).square().mean(), backend=backend)
    score(net, TOKENS_BT).backward()
    plain(TOKENS_BT).square().mean().backward()
    for (name, p), q in zip(net.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-7), name
