"""Adapters that PEFT made, read into their model: the same outputs, and what is not for it refused."""

import json

import pytest
import torch

from llm.adapter import Adapted, attach
from llm.errors import CheckpointError, ConfigError
from llm.hub import to_huggingface
from llm.hub.peft import base_of, beside, is_adapter, read
from llm.model import ModelConfig, Transformer, init_weights
from tests.small_models import GPT2, LLAMA, SHAPE

peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")

KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, "c_attn": 2},
        "alpha_pattern": {"layers.0.*q_proj": 3, "c_attn": 3},
    },
}


def start(**changes):
    model = Transformer(ModelConfig(**SHAPE, **changes)).eval()
    init_weights(model, 0)
    return model


def theirs_of(base):
    state, config = to_huggingface(base, base.config)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager"
    )
    model.load_state_dict(state, strict=False)
    return model.eval()


def saved(base, folder, targets, **keys):
    """An adapter of PEFT's own, with weights that matter."""
    torch.manual_seed(0)  # PEFT draws one of the two matrices
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=targets, **keys)
    model = peft.get_peft_model(theirs_of(base), config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "targets"),
    [(LLAMA, ["q_proj", "down_proj"]), (GPT2, ["c_attn", "c_proj", "c_fc"])],
    ids=["llama", "gpt2"],
)
def test_outputs_are_those_of_peft(shape, targets, kind, tmp_path):
    base = start(**shape)
    theirs = saved(base, tmp_path, targets, **KINDS[kind])
    assert is_adapter(tmp_path)
    ours = Transformer(base.config).eval()
    ours.load_state_dict(read(tmp_path, base.config, base.state_dict()))
    # What is folded in is rounded to float32; nothing after that is.
    theirs, ours = theirs.double(), ours.double()
    tokens = torch.randint(0, 264, (2, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted, found = theirs(tokens).logits, ours(tokens)
        assert (found - base(tokens)).abs().max() / wanted.abs().max() > 0.05
    assert (found - wanted).abs().max() / wanted.abs().max() <= 2e-6
    shared = base.double()
    attach(shared, 3, 1.0, beside(tmp_path, base.config, base.state_dict()))
    with torch.no_grad():
        found = Adapted(shared, 3, base.config, {})(tokens)
    assert (found - wanted).abs().max() / wanted.abs().max() <= 2e-6


def test_an_adapter_of_another_model_is_refused(tmp_path):
    saved(start(**LLAMA), tmp_path, ["q_proj"])
    wider = Transformer(ModelConfig(**{**SHAPE, "d_model": 64}, **LLAMA))
    with pytest.raises(CheckpointError, match=r"adapter of another model than .*q_proj has \(64, 64\)"):
        read(tmp_path, wider.config, wider.state_dict())
    other = start(**GPT2)
    with pytest.raises(
        CheckpointError, match=r"it changes model.layers.0.self_attn.q_proj, which that one lacks"
    ):
        read(tmp_path, other.config, other.state_dict())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type=IA3.*LoRA and DoRA of matrices alone"),
        ({"bias": "all"}, "bias=all"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ],
)
def test_other_kinds_are_refused(keys, message, tmp_path):
    base = start(**LLAMA)
    saved(base, tmp_path, ["q_proj"])
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | keys))
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, base.config, base.state_dict())


def test_what_was_trained_beside_the_matrices_is_refused(tmp_path):
    base = start(**LLAMA)
    saved(base, tmp_path, ["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(ConfigError, match=r"lm_head.*no part of an adapter of matrices"):
        read(tmp_path, base.config, base.state_dict())


def test_a_folder_must_name_its_model(tmp_path):
    saved(start(**LLAMA), tmp_path, ["q_proj"])
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    for base, message in ((None, "names no model"), (str(tmp_path), "is an adapter itself")):
        (tmp_path / "adapter_config.json").write_text(
            json.dumps(settings | {"base_model_name_or_path": base})
        )
        with pytest.raises(CheckpointError, match=message):
            base_of(tmp_path)
