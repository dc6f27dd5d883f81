"""Several adapters beside one model: each row of a batch is what the model with that adapter folded in writes."""

import pytest
import torch
from test_lora import KINDS, LORA, adapted, start

from llm.adapter import Adapted, Lora, attach, merged, using
from llm.generation import BatchEngine, Request, Sampling, classify, pack, quantize
from llm.model import ModelConfig, Transformer
from llm.serve.served import Served
from llm.tokenizer import ByteSpec
from tests.small_models import GPT2, LLAMA, shaken

TARGETS = ["all", ["query", "value"], ["feed_forward.up", "output"]]


@pytest.fixture
def tokens():
    return torch.randint(0, 264, (2, 20), generator=torch.Generator().manual_seed(3))


def beside(base, kind, number):
    """The tensors of an adapter's checkpoint, and the same model with it folded in."""
    lora = Lora(**LORA, **KINDS[kind], targets=TARGETS[number % len(TARGETS)])
    net = adapted(base, lora)
    shaken(net, 0.1, seed=10 + number)
    tensors = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    folded = Transformer(base.config).eval()
    folded.load_state_dict(merged(tensors, lora))
    return lora, tensors, folded


def written(engine, requests):
    found = {request: [] for request in requests}
    for token in engine.run(requests):
        found[token.request].append(token.id)
    return [found[request] for request in requests]


def request(number, adapter, seed=0):
    prompt = torch.randint(0, 264, (4 + number,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Request(prompt, 8, Sampling(), seed=number, adapter=adapter)


@pytest.mark.parametrize("layout", [lambda net: net, lambda net: pack(net, 4)], ids=["plain", "packed"])
@pytest.mark.parametrize("shape", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_a_batch_of_several_adapters_is_what_each_writes_folded_in(shape, layout):
    net = start(**shape)
    pointers = {name: parameter.data_ptr() for name, parameter in net.named_parameters()}
    folded = {None: start(**shape)}
    for number, kind in enumerate(KINDS):
        lora, tensors, folded[number] = beside(net, kind, number)
        attach(net, number, lora.scale, tensors)
    assert {name: parameter.data_ptr() for name, parameter in net.named_parameters()} == pointers
    net = layout(net)
    requests = [request(number, adapter) for number, adapter in enumerate([0, None, 1, 2, 1, None, 0])]
    for rows in (2, 7):
        found = written(BatchEngine(net, rows=rows), requests)
        for one, tokens in zip(requests, found, strict=True):
            alone = Request(one.prompt, 8, Sampling(), seed=one.seed)
            assert [tokens] == written(BatchEngine(folded[one.adapter], rows=1), [alone])
    assert (
        len({tuple(written(BatchEngine(net, rows=1), [request(0, one)])[0]) for one in (None, 0, 1, 2)}) == 4
    )


def test_one_adapters_keys_are_never_taken_for_anothers(tokens):
    net = start(**LLAMA)
    lora, tensors, folded = beside(net, "plain", 1)
    attach(net, 1, lora.scale, tensors)
    engine, prompt = BatchEngine(net, rows=2), tokens[0].tolist()
    for adapter, expected in ((None, start(**LLAMA)), (1, folded), (None, start(**LLAMA)), (1, folded)):
        given = Request(prompt, 8, adapter=adapter)
        assert written(engine, [given]) == written(BatchEngine(expected, rows=1), [Request(prompt, 8)])


def test_it_stands_beside_weights_of_eight_bits(tokens):
    net, alone = start(**LLAMA), start(**LLAMA)
    lora, tensors, folded = beside(net, "plain", 0)
    attach(net, 3, lora.scale, tensors)
    net, alone = quantize(net), quantize(alone)
    with torch.no_grad():
        plain, changed, wanted = net(tokens), Adapted(net, 3, folded.config, {})(tokens), folded(tokens)
        assert torch.equal(plain, alone(tokens))
    assert (changed - wanted).norm() < 0.1 * wanted.norm()
    assert (plain - wanted).norm() > 0.5 * wanted.norm()


def test_models_with_labels_share_all_but_their_heads():
    shape = {**LLAMA, "architecture": "encoder", "labels": ("a", "b")}
    net, tokenizer = start(**shape), ByteSpec().build()
    views, alone = [], []
    for number, labels in enumerate([("a", "b"), ("x", "y", "z")]):
        base = Transformer(ModelConfig(**{**net.config.to_dict(), "labels": labels})).eval()
        own = {name: weight for name, weight in net.state_dict().items() if not name.startswith("label_head")}
        heads = {f"label_head.output.{name}": torch.randn(len(labels), *size) for name, size in (("weight", (32,)), ("bias", ()))}  # fmt: skip
        base.load_state_dict({**own, **heads})
        lora, tensors, folded = beside(base, "plain", number)
        attach(net, number, lora.scale, tensors)
        heads = {name: weight for name, weight in tensors.items() if name.startswith("label_head")}
        views.append(Adapted(net, number, base.config, heads))
        alone.append(folded)
    for view, folded in zip(views, alone, strict=True):
        told, wanted = (classify(model, tokenizer, ["one", "two words"]) for model in (view, folded))
        for one, other in zip(told, wanted, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
        assert view.stack is net.stack


def test_rows_outside_are_left_alone(tokens):
    net = start(**GPT2)
    lora, tensors, folded = beside(net, "dora", 0)
    plain = net(tokens)
    attach(net, 5, lora.scale, tensors)
    assert torch.equal(net(tokens), plain)
    with using([None, 5]):
        mixed = net(tokens)
    assert torch.allclose(mixed[0], plain[0], atol=1e-5)
    assert torch.allclose(mixed[1], folded(tokens)[1], atol=1e-4)
    assert torch.equal(net(tokens), plain)


@torch.no_grad()
def test_an_encoder_decoders_source_is_read_with_the_adapter(tokens):
    net = start(**LLAMA, architecture="encoder_decoder")
    lora, tensors, folded = beside(net, "plain", 0)
    attach(net, 2, lora.scale, tensors)
    view = Adapted(net, 2, net.config, {})
    wanted = folded.source_states(tokens)
    torch.testing.assert_close(view.source_states(tokens), wanted, rtol=0, atol=1e-4)
    assert (net.source_states(tokens) - wanted).norm() > 0.1 * wanted.norm()
    served, alone = (Served(name, model, ByteSpec().build()) for name, model in (("a", view), ("b", folded)))
    assert served.embedding(tokens[0].tolist()) == pytest.approx(
        alone.embedding(tokens[0].tolist()), abs=1e-5
    )
