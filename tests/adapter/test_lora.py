"""Adapters: nothing changes at first, the model stays frozen, folded in is as beside, and PEFT's forward is ours."""

import json

import pytest
import torch

from llm.adapter import Lora, LowRank, initial_weights, layers, merged
from llm.errors import ConfigError
from llm.hub import to_huggingface
from llm.hub.export import About
from llm.hub.peft import write
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.init import initial_value
from llm.tokenizer import ByteSpec
from tests.small_models import GPT2, LLAMA, SHAPE, shaken

KINDS = {"plain": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}
LORA = {"rank": 4, "alpha": 12.0}


def start(**changes):
    """A model whose weights are far from their small initial values."""
    model = Transformer(ModelConfig(**SHAPE, **changes)).eval()
    init_weights(model, 0)
    return shaken(model, 0.1, seed=1)


def adapted(base, lora, trained=True):
    """The same model with adapters that have learnt something."""
    net = Transformer(base.config).eval()
    lora.attach(net)
    net.load_state_dict(initial_weights(net, base.state_dict(), 0))
    if trained:
        shaken(net, 0.1, seed=2)
    return net


@pytest.fixture
def tokens():
    return torch.randint(0, 264, (2, 20), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing(kind, tokens):
    base = start(**LLAMA)
    net = adapted(base, Lora(**LORA, **KINDS[kind]), trained=False)
    torch.testing.assert_close(net(tokens), base(tokens), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_folded_in_is_as_beside(kind, shape, tokens):
    lora = Lora(**LORA, **KINDS[kind])
    base = start(**shape).double()
    net = adapted(base, lora).double()
    alone = Transformer(base.config).double().eval()
    alone.load_state_dict(merged(net.state_dict(), lora))
    assert (net(tokens) - base(tokens)).abs().max() > 0.1
    torch.testing.assert_close(alone(tokens), net(tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["all", ["query", "value", "down"]], ids=["all", "some"])
@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_peft_computes_the_same_beside_the_exported_model(kind, targets, shape, tokens, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = start(**shape)
    net = adapted(base, Lora(**LORA, targets=targets, **KINDS[kind]))
    state, config = to_huggingface(base, base.config)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager"
    )
    theirs.load_state_dict(state, strict=False)
    write(tmp_path, net, ByteSpec().build(), About("tuned", tmp_path / "out", settings={"init_from": "base"}))
    loaded = peft.PeftModel.from_pretrained(theirs.eval(), tmp_path).eval()
    names = {name for name, _ in loaded.named_parameters() if "lora_" in name}
    assert len(names) == len(json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]) * (
        3 if kind == "dora" else 2
    )
    with torch.no_grad():
        wanted, found = loaded(tokens).logits, net(tokens)
    assert (net(tokens) - base(tokens)).abs().max() > 0.1
    assert (found - wanted).abs().max() / wanted.abs().max() <= 2e-6


def test_dora_has_the_gradients_of_peft(tokens, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = start(**LLAMA)
    net = adapted(base, Lora(**LORA, dora=True))
    state, config = to_huggingface(base, base.config)
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    theirs.load_state_dict(state, strict=False)
    write(tmp_path, net, ByteSpec().build(), About("tuned", tmp_path / "out"))
    loaded = peft.PeftModel.from_pretrained(theirs.eval(), tmp_path, is_trainable=True).eval()
    loaded(tokens).logits.square().mean().backward()
    net(tokens).square().mean().backward()
    gradients = {name: p.grad for name, p in loaded.named_parameters() if p.grad is not None}
    for ours, part in (("lora_a", "lora_A"), ("lora_b", "lora_B"), ("lora_gain", "lora_magnitude_vector")):
        mine = getattr(net.get_submodule("stack.blocks.1.feed_forward.up"), ours).grad
        (other,) = [g for name, g in gradients.items() if f"layers.1.mlp.up_proj.{part}" in name]
        assert (mine - other).abs().max() / other.abs().max() <= 1e-5


def test_all_but_the_adapter_and_a_head_of_labels_is_frozen():
    net = start(**GPT2, labels=("a", "b"))
    Lora(**LORA, targets=["query", "feed_forward.up"]).attach(net)
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"lora_a", "lora_b", "weight", "bias"}
    assert {name for name in trained if "lora" not in name} == {
        "label_head.output.weight",
        "label_head.output.bias",
    }
    assert {name.split(".", 3)[3] for name in layers(net)} == {"attention.query", "feed_forward.up"}


def test_dropout_is_of_what_enters_and_in_training_alone(tokens):
    net = adapted(start(**LLAMA), Lora(**LORA, dropout=0.5))
    assert torch.equal(net(tokens), net(tokens))
    layer = next(iter(layers(net).values())).train()
    x = torch.ones(1, layer.in_features)
    assert not torch.equal(layer(x), layer(x))
    assert isinstance(layer, LowRank)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"targets": ["quary"]}, "quary is no part of this model's blocks.* Did you mean query?"),
        (
            {"targets": ["gate"]},
            "gate is no part of this model's blocks; they have down, key, output, query, up, value",
        ),
        ({"rank": 33}, "adapter.rank=33: .* has 32 inputs"),
        ({"rank": 0}, "adapter.rank=0: it must be at least 1"),
        ({"alpha": 0.0}, "adapter.alpha=0.0"),
        ({"dropout": 1.0}, "adapter.dropout=1.0"),
    ],
)
def test_what_does_not_fit_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        Lora(**keys).attach(start(**GPT2))


def test_first_values_follow_from_name_and_seed_alone():
    net = Transformer(ModelConfig(**SHAPE, **LLAMA))
    Lora(**LORA).attach(net)
    weights = {name: initial_value(name, p.shape, net.config, 0) for name, p in net.named_parameters()}
    one, other = initial_weights(net, weights, 5), initial_weights(net, weights, 5)
    assert all(torch.equal(one[name], other[name]) for name in one)
    name = "stack.blocks.0.attention.query.lora_a"
    assert not torch.equal(one[name], initial_weights(net, weights, 6)[name])
