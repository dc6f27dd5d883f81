"""A run with an adapter: trained, scored, asked, exported and merged."""

import json

import pytest
import torch
from safetensors import safe_open

from llm.build import adapted_model, trained_model
from llm.cli.main import main
from llm.train import checkpoint
from llm.train.run import Run
from tests.commands import on_labels, weights, without


@pytest.fixture
def base(tiny_run):
    return tiny_run("base", "trainer.max_steps=4")


@pytest.fixture
def words(tiny, base):
    kept = without(tiny, "model", "tokenizer")
    return [*kept, f"init_from={base}", "adapter=lora", "adapter.rank=4", "optimizer.lr=1e-2"]


def raw(folder):
    with safe_open(checkpoint.find(folder / "checkpoints", None) / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("kind", ["adapter.rslora=true", "adapter.dora=true"])
def test_the_adapter_alone_is_trained_and_all_commands_take_the_run(words, base, tmp_path, kind, capsys):
    assert main(["train", *words, kind, "name=tuned", "trainer.max_steps=6"]) == 0
    assert "The adapter trains" in capsys.readouterr().out
    folder = tmp_path / "runs/tuned"
    before, after = raw(base), raw(folder)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert any(tensor.abs().max() > 0 for name, tensor in after.items() if name.endswith("lora_b"))
    with safe_open(checkpoint.find(folder / "checkpoints", None) / "optimizer.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118
    assert weights(folder).keys() == before.keys()
    entries = json.loads((folder / "evaluation.json").read_text())
    assert main(["evaluate", f"run={folder}"]) == 0
    again = json.loads((folder / "evaluation.json").read_text())
    # Beside the model while it trains, folded in afterwards.
    assert again[0]["metrics"]["loss"] == pytest.approx(entries[0]["metrics"]["loss"], rel=1e-6)
    assert main(["generate", f"run={folder}", "prompt=def", "max_new_tokens=4"]) == 0


def test_it_is_exported_whole_and_alone(words, base, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    assert main(["train", *words, "name=tuned", "trainer.max_steps=6"]) == 0
    folder = tmp_path / "runs/tuned"
    for run, kind, out in ((base, "hf", "base"), (folder, "hf", "whole"), (folder, "peft", "alone")):
        assert main(["export", f"run={run}", f"format={kind}", f"out={tmp_path}/{out}"]) == 0
    load = transformers.AutoModelForCausalLM.from_pretrained
    beside = peft.PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "alone").eval()
    tokens = torch.arange(20, 40)[None]
    net, _ = adapted_model(Run(folder), None)
    folded, _ = trained_model(Run(folder), None)
    with torch.no_grad():
        wanted = net(tokens)
        assert (wanted - load(tmp_path / "base").eval()(tokens).logits).abs().max() > 1e-3
        for found in (beside(tokens).logits, load(tmp_path / "whole").eval()(tokens).logits, folded(tokens)):
            assert (found - wanted).abs().max() / wanted.abs().max() <= 2e-6


@pytest.mark.parametrize("bits", ["int8", pytest.param("nf4", marks=pytest.mark.slow)])
def test_frozen_matrices_in_few_bits_learn_as_much(words, base, tmp_path, bits, capsys):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    assert main(["train", *words, "name=whole", "trainer.max_steps=8"]) == 0
    few = [*words, f"adapter.quantize={bits}"]
    assert main(["train", *few, "name=few", "trainer.max_steps=4"]) == 0
    assert main(["train", *few, "name=few", "trainer.max_steps=8"]) == 0
    assert "Frozen matrices take " in capsys.readouterr().out
    folder = tmp_path / "runs/few"
    scores = [
        json.loads((tmp_path / f"runs/{name}/evaluation.json").read_text())[-1]["metrics"]["loss"]
        for name in ("whole", "few")
    ]
    assert scores[1] == pytest.approx(scores[0], rel=0.005 if bits == "int8" else 0.02)
    # A run that was never stopped has the same codes and the same adapter.
    middle = tmp_path / "runs/few/checkpoints/step_00000004"
    assert main(["train", *few, "name=again", f"resume={middle}", "trainer.max_steps=8"]) == 0
    one, other = raw(folder), raw(tmp_path / "runs/again")
    assert all(torch.equal(one[name], other[name]) for name in one)
    held, before = (sum(t.numel() * t.element_size() for t in each.values()) for each in (one, raw(base)))
    assert held < before
    # Folded in, exported whole, and alone, beside what PEFT makes of it.
    assert main(["merge", f"run={folder}", f"out={tmp_path}/runs/merged"]) == 0
    tokens = torch.arange(20, 40)[None]
    with torch.no_grad():
        net, merged = (
            adapted_model(Run(folder), None)[0],
            trained_model(Run(tmp_path / "runs/merged"), None)[0],
        )
        assert (merged(tokens) - net(tokens)).abs().max() / net(tokens).abs().max() <= 1e-5
        for run, kind, out in ((base, "hf", "base"), (folder, "peft", "alone")):
            assert main(["export", f"run={run}", f"format={kind}", f"out={tmp_path}/{out}"]) == 0
        load = transformers.AutoModelForCausalLM.from_pretrained
        beside = (
            peft.PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "alone").eval()(tokens).logits
        )
        # Theirs stands beside the matrices as they were before they were rounded.
        assert (beside - net(tokens)).abs().max() / beside.abs().max() <= (0.02 if bits == "int8" else 0.2)


def test_merged_is_an_ordinary_run(words, base, tmp_path, capsys):
    assert main(["train", *words, "name=tuned", "trainer.max_steps=6"]) == 0
    folder, out = tmp_path / "runs/tuned", tmp_path / "runs/merged"
    assert main(["merge", f"run={folder}", f"out={out}"]) == 0
    merged, tuned = raw(out), weights(folder)
    assert all(torch.equal(merged[name], tuned[name]) for name in tuned)
    assert main(["evaluate", f"run={out}"]) == 0
    kept = without(words, "init_from", "adapter")
    assert main(["train", *kept, f"init_from={out}", "name=on", "trainer.max_steps=1"]) == 0
    capsys.readouterr()
    assert main(["merge", f"run={folder}", f"out={out}"]) == 2
    assert "something is there already" in capsys.readouterr().err
    assert main(["merge", f"run={base}", f"out={tmp_path}/x"]) == 2
    assert "trained without an adapter" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_task_with_labels_trains_its_head_too(words, base, tmp_path):
    labelled = on_labels(words, tmp_path)
    assert main(["train", *labelled, "task=classification", "name=c", "trainer.max_steps=2"]) == 0
    after = raw(tmp_path / "runs/c")
    assert {"label_head.output.weight", "stack.blocks.0.attention.query.lora_a"} <= after.keys()
    assert main(["evaluate", f"run={tmp_path}/runs/c"]) == 0
    assert main(["export", f"run={tmp_path}/runs/c", "format=peft", f"out={tmp_path}/p"]) == 2


def test_an_adapter_of_another_model_is_refused(words, tiny, tmp_path, capsys):
    assert main(["train", *words, "name=tuned", "trainer.max_steps=4"]) == 0
    folder = checkpoint.find(tmp_path / "runs/tuned/checkpoints", None)
    # The same run with another rank, and a manifest of another adapter.
    assert main(["train", *words[:-2], "adapter.rank=8", "name=tuned", "trainer.max_steps=8"]) != 0
    assert "adapter.rank: 4 -> 8   (refused)" in capsys.readouterr().out
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["adapter"]["rank"] = "four"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["evaluate", f"run={tmp_path}/runs/tuned"]) == 1
    assert "its adapter is none" in capsys.readouterr().err
